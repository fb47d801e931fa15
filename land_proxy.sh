#!/bin/bash
# usage: land "message"
cd /work/scratch/proxy
PY=/work/main/.venv/bin
git add -A && git commit -qm "$1"
for i in 1 2 3; do
git rebase -q trunk || exit 1
$PY/ruff check -q . && $PY/ruff format -q --check . && $PY/mypy 2>&1 | tail -3 || exit 1
PYTHONPATH=$PWD $PY/python scripts/world.py $PY/python -m pytest -q tests/unit/test_architecture.py tests/unit/test_docs.py -m "not slow" 2>&1 | tail -6
git push -q . HEAD:trunk && echo LANDED && exit 0
done
