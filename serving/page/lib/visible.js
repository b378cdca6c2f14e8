// Characters that hide or reorder others are shown by their code points.

const HIDDEN = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069\ufeff]/g;

/** Return text in which control characters, those of bidirectional text included, are shown: ⟨U+202E⟩. */
export function visible(text) {
  return text.replace(HIDDEN, (char) => `⟨U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}
