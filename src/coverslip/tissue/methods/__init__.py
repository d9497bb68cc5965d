"""One tissue method a file: `method(rgb, *, mpp) -> mask`, listed in the file's `ENTRIES`.

A method decides pixel by pixel; specks and holes are cleaned for all of them in `coverslip.tissue.segment`.
"""
