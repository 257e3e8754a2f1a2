/**
 * A table of any length; only the rows in sight and a few around exist in the document. The page
 * itself scrolls. All rows of a table have the same height, set by the style (`--row`, with another
 * value for narrow windows).
 *
 * Tab reaches a single row; the arrow keys, Home, End and the page keys move on, and Enter opens
 * the row.
 */
import { type Signal, useSignal } from "@preact/signals";
import type { ComponentChildren, RefObject } from "preact";
import { useLayoutEffect, useRef } from "preact/hooks";

/** Extra rows beyond each edge of the window. */
const overscan = 6;
/** Height of the page's header, in pixels: a row below the header is hidden. */
const headPx = 110;
/** Space below the last row that a key reaches, in pixels. */
const footPx = 8;
const rowHeightDefault = 40;

export type Column<T> = {
  /** Class of the column's cells. */
  name: string;
  title: string;
  /** `isActive`: Tab reaches the buttons and links in the cell. */
  cell(item: T, isActive: boolean): ComponentChildren;
};

export type RowsProps<T> = {
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
};

export function Rows<T>(props: RowsProps<T>) {
  const { items, columns } = props;
  const sight = useSight(items.length);
  const active = useSignal(0);
  const first = Math.min(sight.range.value.first, Math.max(0, items.length - 1));
  const last = Math.min(sight.range.value.last, items.length);
  const reached = Math.max(first, Math.min(active.value, last - 1));
  const move = useFocus(sight, active);
  useLayoutEffect(() => {
    if (last >= items.length) props.onEnd?.();
  }, [last >= items.length, items.length]);

  const onKeyDown = (event: KeyboardEvent) => {
    const to = rowOfKey(event.key, reached, { count: items.length, rowHeight: sight.rowHeight.current });
    const isRow = (event.target as HTMLElement).role === "row";
    const item = items[reached];
    if (to !== undefined) {
      event.preventDefault();
      move(Math.max(0, Math.min(items.length - 1, to)));
    } else if (event.key === "Enter" && isRow && props.open && item) {
      event.preventDefault();
      props.open(item);
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
      <Head columns={columns} />
      <div ref={sight.space} class="rows-space" data-count={items.length} role="presentation">
        <div
          role="rowgroup"
          style={{ transform: `translateY(${first * sight.rowHeight.current}px)` }}
          onKeyDown={onKeyDown}
        >
          {items.slice(first, last).map((item, offset) => (
            <Row
              key={props.keyOf(item)}
              {...{ props, item, active }}
              index={first + offset}
              isReached={first + offset === reached}
            />
          ))}
        </div>
      </div>
    </div>
  );
}

function Head<T>({ columns }: Pick<RowsProps<T>, "columns">) {
  return (
    <div role="rowgroup" class="rows-head">
      <div role="row" class="row" aria-rowindex={1}>
        {columns.map((column) => (
          <div key={column.name} role="columnheader" class={column.name}>
            {column.title}
          </div>
        ))}
      </div>
    </div>
  );
}

function Row<T>(own: {
  props: RowsProps<T>;
  item: T;
  index: number;
  isReached: boolean;
  active: Signal<number>;
}) {
  const { props, item, index, isReached, active } = own;
  const key = props.keyOf(item);
  return (
    <div
      role="row"
      class={props.open ? "row opens" : "row"}
      aria-rowindex={index + 2}
      aria-selected={props.selected === undefined ? undefined : key === props.selected}
      data-index={index}
      data-key={key}
      tabIndex={isReached ? 0 : -1}
      onFocusIn={() => {
        active.value = index;
      }}
      onClick={(event) => {
        const isElsewhere = (event.target as HTMLElement).closest("a, button") !== null;
        if (!isElsewhere && getSelection()?.isCollapsed) props.open?.(item);
      }}
    >
      {props.columns.map((column) => (
        <div key={column.name} role="gridcell" class={column.name}>
          {column.cell(item, isReached)}
        </div>
      ))}
    </div>
  );
}

type Sight = {
  /** The element with the height of all rows. */
  space: RefObject<HTMLDivElement | null>;
  /** In pixels. */
  rowHeight: { current: number };
  /**
   * Position of the first row in the document, cached: measuring while scrolling would force a
   * second layout.
   */
  top: { current: number };
  /** The rows to render, without `last`. */
  range: Signal<{ first: number; last: number }>;
  /** Computes the range. */
  look(): void;
};

/**
 * The rows in sight, also after a scroll, after a change of the window, and after a change of
 * `count`.
 */
function useSight(count: number): Sight {
  const space = useRef<HTMLDivElement>(null);
  const rowHeight = useRef(rowHeightDefault);
  const top = useRef(0);
  const range = useSignal({ first: 0, last: 40 });

  const look = () => {
    const height = rowHeight.current;
    const above = top.current - scrollY;
    const first = Math.max(0, Math.floor(-above / height) - overscan);
    const last = Math.max(first, Math.ceil((innerHeight - above) / height) + overscan);
    const seen = range.peek();
    if (first !== seen.first || last !== seen.last) range.value = { first, last };
  };

  useLayoutEffect(() => {
    const measure = () => {
      const element = space.current;
      if (!element) return;
      const height = getComputedStyle(element).getPropertyValue("--row");
      rowHeight.current = Number.parseFloat(height) || rowHeightDefault;
      element.style.height = `${rowHeight.current * countOf(element)}px`;
      top.current = element.getBoundingClientRect().top + scrollY;
      look();
    };
    const resized = new ResizeObserver(measure);
    if (space.current?.parentElement) resized.observe(space.current.parentElement);
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

  useLayoutEffect(() => {
    // Sets the height before the next scroll, and renders the new rows in sight.
    if (space.current) space.current.style.height = `${rowHeight.current * count}px`;
    look();
  }, [count]);
  return { space, rowHeight, top, range, look };
}

/**
 * The function that moves the focus to a row: at once, or after the render of a row out of sight.
 */
function useFocus(sight: Sight, active: Signal<number>): (index: number) => void {
  const wantsFocus = useRef(false);
  const focus = (index: number) => {
    const row = sight.space.current?.querySelector<HTMLElement>(`[data-index="${index}"]`);
    row?.focus({ preventScroll: true });
    return row;
  };
  useLayoutEffect(() => {
    if (!wantsFocus.current) return;
    wantsFocus.current = false;
    focus(active.peek());
  });
  return (index) => {
    const height = sight.rowHeight.current;
    const top = sight.top.current - scrollY + index * height;
    if (top < headPx) scrollBy(0, top - headPx);
    else if (top + height > innerHeight) scrollBy(0, top + height - innerHeight + footPx);
    wantsFocus.current = true;
    active.value = index;
    sight.look();
    if (focus(index)) wantsFocus.current = false;
  };
}

/** The row that a key moves to, which may lie outside of the list; undefined for any other key. */
function rowOfKey(
  key: string,
  reached: number,
  { count, rowHeight }: { count: number; rowHeight: number },
): number | undefined {
  const page = Math.max(1, Math.floor(innerHeight / rowHeight) - 3);
  const moves: Record<string, number> = {
    ArrowDown: reached + 1,
    ArrowUp: reached - 1,
    PageDown: reached + page,
    PageUp: reached - page,
    Home: 0,
    End: count - 1,
  };
  return moves[key];
}

function countOf(space: HTMLElement): number {
  return Number(space.dataset.count ?? 0);
}
