/** Short messages about finished actions, for eyes and for screen readers. */
import { signal } from "@preact/signals";
import { explainError } from "../data/api.ts";

type Toast = { id: number; text: string; isError: boolean };

const shownMs = 6_000;
const errorShownMs = 15_000;
const shownMax = 4;

const toasts = signal<readonly Toast[]>([]);
/** Text for screen readers only: changes elsewhere on the page. */
const announced = signal("");
let lastId = 0;

export function tell(text: string, isError = false): void {
  const toast = { id: ++lastId, text, isError };
  toasts.value = [...toasts.value, toast].slice(-shownMax);
  setTimeout(() => dismiss(toast.id), isError ? errorShownMs : shownMs);
}

export function announce(text: string): void {
  announced.value = text;
}

/** Runs a button's action and shows the outcome; resolves to true on success. */
export async function attempt(act: () => Promise<string | undefined>): Promise<boolean> {
  try {
    const done = await act();
    if (done) tell(done);
    return true;
  } catch (error) {
    tell(explainError(error), true);
    return false;
  }
}

function dismiss(id: number): void {
  toasts.value = toasts.value.filter((toast) => toast.id !== id);
}

export function Toasts() {
  return (
    <>
      <div class="toasts" role="status" aria-live="polite" aria-label="Messages">
        {toasts.value.map((toast) => (
          <div key={toast.id} class={toast.isError ? "toast bad" : "toast"}>
            <span>
              {toast.isError && <b>Not done. </b>}
              {toast.text}
            </span>
            <button type="button" class="plain" aria-label="Dismiss" onClick={() => dismiss(toast.id)}>
              ×
            </button>
          </div>
        ))}
      </div>
      <div class="unseen" role="log" aria-live="polite" aria-label="Changes">
        {announced.value}
      </div>
    </>
  );
}
