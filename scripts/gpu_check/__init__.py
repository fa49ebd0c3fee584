"""`scripts/gpu-check.sh`: does everything work on this GPU, how fast is it, and does a deep model train?

`run` starts one process for each stage (`environment`, `correct`, `speed`, `train`, `decode`,
`export`: a module each) and bounds its time; `stage` is that process; `report` writes what it finds
as soon as it is there. docs/gpu.md says how to read the results.
"""
