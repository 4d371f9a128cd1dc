"""Training: a recording becomes a tokenizer, a dynamics model and a distilled checkpoint (`python -m train --help`)."""
