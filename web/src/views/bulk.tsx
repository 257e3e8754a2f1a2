/** Cancels or retries all runs of the present filter: a count first, then progress. */
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import { useSignal } from "@preact/signals";
import { useEffect } from "preact/hooks";
import {
  BulkKind,
  type BulkOperation,
  BulkState,
  type RunStatus,
  type StartBulkOperationResponse,
} from "#gen/pinion/v1/run_pb.js";
import { explainError, runs } from "../data/api.ts";
import { newKey } from "../data/key.ts";
import { useReading } from "../data/reading.ts";
import { closeDialog, Dialog } from "../parts/dialog.tsx";
import { ReadingState } from "../parts/table.tsx";
import { attempt } from "../parts/toasts.tsx";
import { linkTo } from "../route.ts";
import { runWord } from "../words.ts";

export type BulkFilter = {
  statuses: readonly RunStatus[];
  deviceId: string;
  watcherId: string;
  label: string;
  sinceMs: number | undefined;
};

const verbs = { [BulkKind.CANCEL]: "Cancel", [BulkKind.RETRY]: "Retry" } as const;
export type PageBulkKind = keyof typeof verbs;

/** The filter of the request; without a state the server takes the states that fit the kind. */
function requestOf(kind: PageBulkKind, { label, sinceMs, statuses, deviceId, watcherId }: BulkFilter) {
  return {
    kind,
    filter: {
      ...{ statuses: [...statuses], deviceId, watcherId },
      labels: label === "" ? [] : [label],
      ...(sinceMs === undefined ? {} : { since: timestampFromMs(sinceMs) }),
    },
  };
}

export default function BulkDialog({ kind, filter }: { kind: PageBulkKind; filter: BulkFilter }) {
  const operation = useSignal("");
  const verb = verbs[kind];
  return (
    <Dialog title={`${verb} many runs`} class="narrow">
      {operation.value === "" ? (
        <Preview
          kind={kind}
          filter={filter}
          started={(id) => {
            operation.value = id;
          }}
        />
      ) : (
        <Progress id={operation.value} />
      )}
    </Dialog>
  );
}

function Preview(props: { kind: PageBulkKind; filter: BulkFilter; started: (id: string) => void }) {
  const { kind, filter, started } = props;
  const preview = useSignal<StartBulkOperationResponse | undefined>(undefined);
  const error = useSignal("");
  const isBusy = useSignal(false);
  useEffect(() => {
    runs.startBulkOperation({ ...requestOf(kind, filter), dryRun: true }).then(
      (found) => {
        preview.value = found;
      },
      (failure) => {
        error.value = explainError(failure);
      },
    );
  }, []);
  const start = async () => {
    isBusy.value = true;
    try {
      const { operation } = await runs.startBulkOperation({
        ...requestOf(kind, filter),
        requestId: newKey(),
      });
      started(operation!.id);
    } catch (failure) {
      error.value = explainError(failure);
    }
    isBusy.value = false;
  };
  const found = preview.value;
  if (!found) return <ReadingState error={error.value} again={() => {}} />;
  return (
    <>
      <Meant found={found} />
      {error.value && (
        <p class="error" role="alert">
          {error.value}
        </p>
      )}
      <footer>
        <button type="button" onClick={closeDialog}>
          Leave them
        </button>
        <button
          type="button"
          class={kind === BulkKind.CANCEL ? "danger" : "primary"}
          disabled={found.matched === 0 || isBusy.value}
          onClick={start}
        >
          {verbs[kind]} {found.matched.toLocaleString("en")}
        </button>
      </footer>
    </>
  );
}

/** What the operation would do: how many runs, of which watchers or states. */
function Meant({ found }: { found: StartBulkOperationResponse }) {
  const few = [...found.counts].sort((a, b) => b.count - a.count).slice(0, 12);
  return (
    <>
      <p>
        <b class="bulk-count">{found.matched.toLocaleString("en")}</b>{" "}
        {found.matched === 1 ? "run is" : "runs are"} meant.
      </p>
      {few.length > 0 && (
        <ul class="bulk-counts">
          {few.map(({ status, watcherSlug, count }) => (
            <li key={`${status}${watcherSlug}`}>
              {count.toLocaleString("en")} {watcherSlug ? `of ${watcherSlug}` : runWord(status)}
            </li>
          ))}
        </ul>
      )}
      {found.notAllowed > 0 && (
        <p class="muted">{found.notAllowed} more are on devices that you may not use, and are left out.</p>
      )}
    </>
  );
}

function Progress({ id }: { id: string }) {
  const reading = useReading(
    async (signal) => (await runs.getBulkOperation({ operationId: id }, { signal })).operation!,
    [id],
    // Each of its runs and its end is an event.
    ({ kind }) => kind.startsWith("run.") || kind.startsWith("bulk."),
  );
  const operation = reading.value.value;
  if (!operation) return <ReadingState error={reading.error.value} again={reading.again} />;
  const { matched, left, state, problems } = operation;
  const isRunning = state === BulkState.RUNNING;
  return (
    <>
      <p role="status">{progressWords(operation)}</p>
      <progress
        class="bulk-progress"
        max={Math.max(1, matched)}
        value={matched - left}
        aria-label="Progress"
      />
      {problems.length > 0 && (
        <ul class="bulk-counts">
          {problems.map(({ runId, reason }) => (
            <li key={runId}>
              <a href={linkTo("runs", runId)}>{runId.slice(-8)}</a> {reason}
            </li>
          ))}
        </ul>
      )}
      <p class="muted">{isRunning ? "It goes on by itself; this dialog can be closed." : ""}</p>
      <footer>
        {isRunning && (
          <button
            type="button"
            onClick={() =>
              attempt(async () => {
                await runs.stopBulkOperation({ operationId: id });
                reading.again();
                return undefined;
              })
            }
          >
            Stop it
          </button>
        )}
        <button type="button" class="primary" onClick={closeDialog}>
          Close
        </button>
      </footer>
    </>
  );
}

function progressWords({ matched, done, passedOver, failed, left, state }: BulkOperation): string {
  const parts = [
    `${done.toLocaleString("en")} of ${matched.toLocaleString("en")} done`,
    ...(passedOver > 0 ? [`${passedOver} had ended before`] : []),
    ...(failed > 0 ? [`${failed} failed`] : []),
    ...(left > 0 ? [`${left} left`] : []),
    ...(state === BulkState.STOPPED ? ["stopped"] : state === BulkState.FINISHED ? ["finished"] : []),
  ];
  return parts.join(", ");
}
