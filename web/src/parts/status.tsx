import { toneOf } from "../words.ts";

/** A state with its colour and word. */
export function Status({ word }: { word: string }) {
  return (
    <span class={`status ${toneOf(word)}`}>
      <i aria-hidden="true" />
      {word}
    </span>
  );
}
