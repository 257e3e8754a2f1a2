/** The results of a watcher: the latest, earlier ones, and what differs. */
import { toJson } from "@bufbuild/protobuf";
import { timestampMs, ValueSchema } from "@bufbuild/protobuf/wkt";
import type { Window } from "#gen/pinion/v1/run_pb.js";
import type { Watcher } from "#gen/pinion/v1/watcher_pb.js";
import { runs } from "../data/api.ts";
import { endsRuns, type Happening } from "../data/live.ts";
import { useReading } from "../data/reading.ts";
import { excerptOf, textOf } from "../data/windows.ts";
import { Copy } from "../parts/copy.tsx";
import { DataTree } from "../parts/data-tree.tsx";
import { Diff } from "../parts/diff.tsx";
import { Markdown } from "../parts/markdown.tsx";
import { type Column, ReadingState, Table } from "../parts/table.tsx";
import { Ago } from "../parts/time.tsx";
import { linkTo, route, setQuery } from "../route.ts";
import { slotText } from "../times.ts";

const windowsShown = 30;

/** Whether an event is the end of one of the watcher's runs. */
export const endsRunOf = (watcher: Watcher) => (event: Happening) =>
  event.watcherId === watcher.id && endsRuns(event);

export function Results({ watcher }: { watcher: Watcher }) {
  const reading = useReading(
    (signal) => runs.listWindows({ watcherId: watcher.id, pageSize: windowsShown }, { signal }),
    [watcher.id],
    endsRunOf(watcher),
  );
  const { query } = route.value;
  const windows = reading.value.value?.windows;
  if (!windows) {
    return (
      <section class="sheet" aria-label="Result">
        <ReadingState error={reading.error.value} again={reading.again} />
      </section>
    );
  }
  const [newest] = windows;
  if (!newest) {
    return (
      <section class="sheet" aria-label="Result">
        <h2>No result yet</h2>
        <p class="muted">The result of each completed run is kept here, the newest first.</p>
      </section>
    );
  }
  const shown = windows.find(({ id }) => id === query.get("result")) ?? newest;
  const before = windows.find(({ id }) => id === query.get("before"));
  return (
    <>
      <section class="sheet result" aria-label="Result">
        <h2>
          {shown === newest ? "Latest result" : "Result"}{" "}
          <small>
            <Ago at={shown.createdAt} /> · <a href={linkTo("runs", shown.runId)}>its run</a>
          </small>
          {!before && <Copy text={textOf(shown)} what="the result" />}
        </h2>
        {before ? <Compared before={before} after={shown} /> : <Found window={shown} />}
      </section>
      <section class="sheet" aria-label="Results before">
        <h2>
          Results{" "}
          <small>{windows.length === windowsShown ? `the newest ${windowsShown}` : windows.length}</small>
        </h2>
        <Table label="Results" items={windows} keyOf={({ id }) => id} columns={columnsFor(shown)} />
      </section>
    </>
  );
}

function Compared({ before, after }: { before: Window; after: Window }) {
  return (
    <>
      <p class="muted">
        Against the result of <Ago at={before.createdAt} />.{" "}
        <button type="button" class="quiet" onClick={() => setQuery({ before: "" })}>
          Show it alone
        </button>
      </p>
      <Diff before={textOf(before)} after={textOf(after)} label="What differs" />
    </>
  );
}

const momentOf = ({ createdAt }: Window) => (createdAt ? slotText(timestampMs(createdAt)) : "");

/** The columns of the list of results, of which `shown` is on the page. */
const columnsFor = (shown: Window): Column<Window>[] => [
  {
    title: "When",
    cell: (window) => (
      <button
        type="button"
        class="quiet"
        aria-pressed={window === shown}
        onClick={() => setQuery({ result: window.id, before: "" })}
      >
        {momentOf(window)}
      </button>
    ),
  },
  {
    title: "It begins",
    class: "wide-cell",
    cell: (window) => (window.outputHidden ? <span class="muted">hidden</span> : excerptOf(window)),
  },
  {
    title: "",
    class: "end",
    cell: (window) =>
      window === shown ? (
        <span class="muted">shown</span>
      ) : (
        <button
          type="button"
          class="quiet"
          aria-label={`Compare with ${momentOf(window)}`}
          onClick={() => setQuery({ result: shown.id, before: window.id })}
        >
          Compare
        </button>
      ),
  },
];

function Found({ window }: { window: Window }) {
  if (window.outputHidden) {
    return <p class="muted">Its device’s owner has not let you read what runs say there.</p>;
  }
  return (
    <>
      {window.result !== "" ? (
        <Markdown text={window.result} />
      ) : window.structured === undefined ? (
        <pre class="printed" role="region" aria-label="What it printed" tabIndex={0}>
          {textOf(window)}
        </pre>
      ) : null}
      {window.structured !== undefined && (
        <DataTree value={toJson(ValueSchema, window.structured)} name="Data" />
      )}
    </>
  );
}
