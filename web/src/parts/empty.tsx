import type { ComponentChildren } from "preact";
import type { Collection } from "../data/collection.ts";

/** Advice in place of an empty list. */
export function Empty({ title, children }: { title: string; children?: ComponentChildren }) {
  return (
    <div class="empty">
      <h2>{title}</h2>
      {children}
    </div>
  );
}

/** Text in place of a list not loaded or not readable. */
export function ListState({ of }: { of: Pick<Collection<unknown>, "state" | "error" | "resync"> }) {
  if (of.state.value === "failed") {
    return (
      <div class="empty" role="alert">
        <h2>This list could not be read</h2>
        <p>{of.error.value}</p>
        <button type="button" onClick={of.resync}>
          Try again
        </button>
      </div>
    );
  }
  return (
    <p class="empty loading" role="status">
      Reading…
    </p>
  );
}
