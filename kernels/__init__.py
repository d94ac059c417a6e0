"""Operations on tensors: one operation a file, each beside its plain-torch twin. They know nothing else of Tercet."""
