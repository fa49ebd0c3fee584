"""Deep Transformers for machine translation in fairseq: ADMIN, RealFormer, R-Drop, head pruning.

`import admin_nmt` registers all models, criterions and optimizers with fairseq. The `admin-nmt`
command defers that until a subcommand imports fairseq.
"""

import admin_nmt_autoload

__version__ = "0.2.0"

if not admin_nmt_autoload.defer_registration:
    import admin_nmt.registration  # noqa: F401
