/**
 * A table of any length; only the rows in sight and a few around exist in the document. The page
 * itself scrolls. All rows of a table have the same height, set by the style (`--row`, with another
 * value for narrow windows).
 *
 * Tab reaches a single row; the arrow keys, Home, End and the page keys move on, and Enter opens
 * the row.
 */
import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

/** Extra rows beyond each edge of the window. */
const overscan = 6;

export type Column<T> = {
  /** Class of the column's cells. */
  name: string;
  title: string;
  /** `isActive`: Tab reaches the buttons and links in the cell. */
  cell(item: T, isActive: boolean): ComponentChildren;
};

export function Rows<T>(props: {
  label: string;
  class: string;
  items: readonly T[];
  keyOf(item: T): string;
  columns: readonly Column<T>[];
  /** Called for Enter, and for a click outside buttons. */
  open?: (item: T) => void;
  selected?: string;
  /** Called when the end of the list comes into sight. */
  onEnd?: () => void;
  /** True if there are more rows than `items`. */
  hasMore?: boolean;
}) {
  const { items, columns } = props;
  const space = useRef<HTMLDivElement>(null);
  const rowHeight = useRef(40);
  /**
   * Position of the first row in the document, cached: measuring while scrolling would force a
   * second layout.
   */
  const spaceTop = useRef(0);
  const range = useSignal({ first: 0, last: 40 });
  const active = useSignal(0);
  const wantsFocus = useRef(false);

  const look = () => {
    const height = rowHeight.current;
    const top = spaceTop.current - scrollY;
    const first = Math.max(0, Math.floor(-top / height) - overscan);
    const last = Math.max(first, Math.ceil((innerHeight - top) / height) + overscan);
    const seen = range.peek();
    if (first !== seen.first || last !== seen.last) range.value = { first, last };
  };

  useLayoutEffect(() => {
    const measure = () => {
      if (!space.current) return;
      rowHeight.current = Number.parseFloat(getComputedStyle(space.current).getPropertyValue("--row")) || 40;
      space.current.style.height = `${rowHeight.current * countOf(space.current)}px`;
      spaceTop.current = space.current.getBoundingClientRect().top + scrollY;
      look();
    };
    const resized = new ResizeObserver(measure);
    resized.observe(space.current!.parentElement!);
    // The content above the rows may change its height.
    resized.observe(document.body);
    measure();
    addEventListener("scroll", look, { passive: true });
    addEventListener("resize", look);
    return () => {
      resized.disconnect();
      removeEventListener("scroll", look);
      removeEventListener("resize", look);
    };
  }, []);

  const first = Math.min(range.value.first, Math.max(0, items.length - 1));
  const last = Math.min(range.value.last, items.length);
  const reached = Math.max(first, Math.min(active.value, last - 1));

  useLayoutEffect(() => {
    // Sets the height before the next scroll, and renders the new rows in sight.
    if (space.current) space.current.style.height = `${rowHeight.current * items.length}px`;
    look();
  }, [items.length]);
  useLayoutEffect(() => {
    if (!wantsFocus.current) return;
    wantsFocus.current = false;
    const row = space.current?.querySelector<HTMLElement>(`[data-index="${active.peek()}"]`);
    row?.focus({ preventScroll: true });
  });
  useLayoutEffect(() => {
    if (last >= items.length) props.onEnd?.();
  }, [last >= items.length, items.length]);

  const move = (to: number) => {
    const index = Math.max(0, Math.min(items.length - 1, to));
    const height = rowHeight.current;
    const top = spaceTop.current - scrollY + index * height;
    const headPx = 110;
    if (top < headPx) scrollBy(0, top - headPx);
    else if (top + height > innerHeight) scrollBy(0, top + height - innerHeight + 8);
    wantsFocus.current = true;
    active.value = index;
    look();
    const row = space.current?.querySelector<HTMLElement>(`[data-index="${index}"]`);
    if (row) {
      wantsFocus.current = false;
      row.focus({ preventScroll: true });
    }
  };

  const onKeyDown = (event: KeyboardEvent) => {
    const page = Math.max(1, Math.floor(innerHeight / rowHeight.current) - 3);
    const moves: Record<string, number> = {
      ArrowDown: reached + 1,
      ArrowUp: reached - 1,
      PageDown: reached + page,
      PageUp: reached - page,
      Home: 0,
      End: items.length - 1,
    };
    const to = moves[event.key];
    const isRow = (event.target as HTMLElement).role === "row";
    if (to !== undefined) {
      event.preventDefault();
      move(to);
    } else if (event.key === "Enter" && isRow && props.open) {
      event.preventDefault();
      props.open(items[reached]!);
    }
  };

  return (
    <div
      class={`rows ${props.class}`}
      role="grid"
      aria-label={props.label}
      aria-rowcount={props.hasMore ? -1 : items.length + 1}
      aria-colcount={columns.length}
    >
      <div role="rowgroup" class="rows-head">
        <div role="row" class="row" aria-rowindex={1}>
          {columns.map((column) => (
            <div key={column.name} role="columnheader" class={column.name}>
              {column.title}
            </div>
          ))}
        </div>
      </div>
      <div ref={space} class="rows-space" data-count={items.length} role="presentation">
        <div
          role="rowgroup"
          style={{ transform: `translateY(${first * rowHeight.current}px)` }}
          onKeyDown={onKeyDown}
        >
          {items.slice(first, last).map((item, offset) => {
            const index = first + offset;
            const key = props.keyOf(item);
            return (
              <div
                key={key}
                role="row"
                class={props.open ? "row opens" : "row"}
                aria-rowindex={index + 2}
                aria-selected={props.selected === undefined ? undefined : key === props.selected}
                data-index={index}
                data-key={key}
                tabIndex={index === reached ? 0 : -1}
                onFocusIn={() => {
                  active.value = index;
                }}
                onClick={(event) => {
                  const isElsewhere = (event.target as HTMLElement).closest("a, button") !== null;
                  if (!isElsewhere && getSelection()?.isCollapsed) props.open?.(item);
                }}
              >
                {columns.map((column) => (
                  <div key={column.name} role="gridcell" class={column.name}>
                    {column.cell(item, index === reached)}
                  </div>
                ))}
              </div>
            );
          })}
        </div>
      </div>
    </div>
  );
}

function countOf(space: HTMLElement): number {
  return Number(space.dataset.count ?? 0);
}
