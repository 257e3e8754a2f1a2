/**
 * A value read by a view, and read again after changes. The latest answer wins; the last value
 * stays shown.
 */
import { type ReadonlySignal, useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import { explainError } from "./api.ts";
import { type Happening, listen } from "./live.ts";

export type Reading<T> = {
  value: ReadonlySignal<T | undefined>;
  error: ReadonlySignal<string>;
  again(): void;
};

/** Events within this time in ms cause a single read. */
const gatherMs = 600;

/**
 * Reads when the view is shown, when `keys` change, after a gap in the events, and after events
 * accepted by `concerns`.
 */
export function useReading<T>(
  read: (signal: AbortSignal) => Promise<T>,
  keys: readonly unknown[],
  concerns: (event: Happening) => boolean = () => false,
): Reading<T> {
  const value = useSignal<T | undefined>(undefined);
  const error = useSignal("");
  const asked = useSignal(0);
  useEffect(() => {
    value.value = undefined;
  }, keys);
  useEffect(() => {
    const left = new AbortController();
    let timer: ReturnType<typeof setTimeout> | undefined;
    const look = () => {
      read(left.signal).then(
        (found) => {
          if (left.signal.aborted) return;
          value.value = found;
          error.value = "";
        },
        (failure) => {
          if (!left.signal.aborted) error.value = explainError(failure);
        },
      );
    };
    const soon = () => {
      timer ??= setTimeout(() => {
        timer = undefined;
        look();
      }, gatherMs);
    };
    const stop = listen({ onEvent: (event) => concerns(event) && soon(), onGap: soon });
    look();
    return () => {
      left.abort();
      clearTimeout(timer);
      stop();
    };
  }, [...keys, asked.value]);
  return { value, error, again: () => asked.value++ };
}

/** Reads all pages of a list, up to a maximum of items. */
export async function allPages<T>(
  itemsMax: number,
  page: (pageToken: string) => Promise<{ items: readonly T[]; nextPageToken: string }>,
): Promise<T[]> {
  const items: T[] = [];
  let pageToken = "";
  do {
    const answer = await page(pageToken);
    items.push(...answer.items);
    pageToken = answer.nextPageToken;
  } while (pageToken !== "" && items.length < itemsMax);
  return items;
}
