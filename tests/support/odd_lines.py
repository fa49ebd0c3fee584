"""Lines that real test sets have and that must neither stop a job nor shift the lines behind them."""

ODD_LINES = [
    "",
    " \t ",
    "line\u2028separator and paragraph\u2029separator",
    "next\u0085line",
    "zero\u200bwidth\u200djoiner \ufeff\u2060",
    "right \u200fto\u200e left \u202emarks\u202c",
    "nul \x00 and \x1c file \x1d group \x1e record \x1f unit \x0b \x0c separators",
    "\x00",
    "\u2028",
    "carriage\rreturn",
    "emoji 👩\u200d👩\u200d👧 🇩🇪",
    "literal @@ and half@@ @@ @-@ |||",
    "<unk> <pad> </s> <s> <<unk>>",
    "&quot; &amp;amp; &#124; &lt;unk&gt; R&D",
    "ノーブレーク\u00a0スペース",
    "x" * 300,
]
