"""Options of `fairseq-train` that choose a criterion, and that leave dropout out."""

SMOOTH = ("--label-smoothing", "0.1")
OURS = ("--criterion", "admin_label_smoothed_cross_entropy", *SMOOTH)
RDROP = ("--criterion", "label_smoothed_cross_entropy_rdrop", *SMOOTH)
STOCK = ("--criterion", "label_smoothed_cross_entropy", *SMOOTH)
STILL = ("--dropout", "0", "--attention-dropout", "0", "--activation-dropout", "0")
