"""The stages of training: tokenizer, dynamics, distillation, and what runs around each."""
