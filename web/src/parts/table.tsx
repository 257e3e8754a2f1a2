/**
 * A plain table with few rows. A wide table scrolls by itself; on a phone each row is a block of
 * titled lines.
 */
import type { ComponentChildren } from "preact";

export type Column<T> = { title: string; cell(item: T): ComponentChildren; class?: string };

export function Table<T>(props: {
  label: string;
  items: readonly T[];
  keyOf(item: T): string;
  columns: readonly Column<T>[];
}) {
  return (
    <div class="scrolls" role="region" aria-label={props.label} tabIndex={0}>
      <table class="plain-table">
        <thead>
          <tr>
            {props.columns.map(({ title, class: name }) => (
              <th key={title} scope="col" class={name}>
                {title}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {props.items.map((item) => (
            <tr key={props.keyOf(item)}>
              {props.columns.map(({ title, cell, class: name }) => (
                <td key={title} class={name} data-title={title}>
                  {cell(item)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** Text in place of a value not read yet or not readable. */
export function ReadingState({ error, again }: { error: string; again: () => void }) {
  if (error === "") {
    return (
      <p class="empty loading" role="status">
        Reading…
      </p>
    );
  }
  return (
    <div class="empty" role="alert">
      <h2>This could not be read</h2>
      <p>{error}</p>
      <button type="button" onClick={again}>
        Try again
      </button>
    </div>
  );
}
