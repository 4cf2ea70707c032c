"""Maps the top-level `kernels/` into the wheel as `cuframe/_kernels`; all else is in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).resolve().parent
KERNEL_DIRS = [d.relative_to(ROOT) for d in sorted((ROOT / "kernels").rglob("*")) if d.is_dir()]
KERNEL_PACKAGES = ["cuframe._kernels"] + ["cuframe._kernels." + ".".join(d.parts[1:]) for d in KERNEL_DIRS]
KERNEL_FILES = ["*.cu", "*.cuh", "*.h", "*.cpp", "*.json", "*.md"]

setup(
    packages=find_packages(include=["cuframe", "cuframe.*"]) + KERNEL_PACKAGES,
    package_dir={"cuframe._kernels": "kernels"},
    package_data={"cuframe": ["py.typed"], **dict.fromkeys(KERNEL_PACKAGES, KERNEL_FILES)},
    exclude_package_data={"cuframe._kernels": ["resources.json"]},  # what builds in a checkout are held against
)
