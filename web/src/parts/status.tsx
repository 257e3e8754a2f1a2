import { toneOf } from "../words.ts";

/** A state by its colour and its word. */
export function Status({ word }: { word: string }) {
  return (
    <span class={`status ${toneOf(word)}`}>
      <i aria-hidden="true" />
      {word}
    </span>
  );
}
