"""The matrix of docs/runtimes.md: artifacts run in other runtimes, compared with intaglio.

    python -m intaglio.scripts.interop --write                        # every case in every runtime, into the page
    python -m intaglio.scripts.interop --quick                        # one case of each kind
    python -m intaglio.scripts.interop --runtimes genai,onnxruntime   # in these
    python -m intaglio.scripts.interop --real CHECKPOINT --resume --write     # and a checkpoint of yours

Each runtime has an environment of its own, which pip or npm makes the first time in INTAGLIO_INTEROP, or else in
``~/.cache/intaglio/interop``. A program of ``runners/`` runs there, as ``RUNNER CASE.json RESULT.json``:

    CASE      {"artifact": folder, "task": ..., "target": ..., "texts": [...], "batch": [...] or null,
               "max_new_tokens": 24}; the texts of ``batch`` are run as one batch, padded as the runtime pads
    RESULT    {"runtime": "name version", "outputs": [...], "batch": [...] or null}, or {"refused": "one line"};
              where the runtime takes the texts and not the batch, "batch_refused" says why

An output is, by task: the list of new token ids of greedy text generation; {"label", "score"}; a list of label ids; of
a text that is [question, context] {"answer", "score"}; {"shape", "values": the first 16 of the last token's state}.
"""
