/** The runs accepted by the viewer's filter, newest first; older runs are read while scrolling. */
import { timestampFromMs, timestampMs } from "@bufbuild/protobuf/wkt";
import { signal } from "@preact/signals";
import type { AttentionReason } from "#gen/pinion/v1/activity_pb.js";
import type { Run, RunStatus } from "#gen/pinion/v1/run_pb.js";
import { runs as api } from "./api.ts";
import { createCollection } from "./collection.ts";
import { devices } from "./devices.ts";

export type RunFilter = {
  statuses: readonly RunStatus[];
  deviceId: string;
  watcherId: string;
  /** Runs with attention reasons: any reason, or those listed. */
  attention: "any" | readonly AttentionReason[];
  /** A label of the device; empty: every device, and none. */
  label: string;
  /** Runs that were due then or later, in ms since the epoch. */
  sinceMs: number | undefined;
};

const pageSize = 100;
/** Maximum of pages read again after a gap; scrolling requests more. */
const pagesMax = 50;

/** Choices of `sinceMs` are further apart, in ms. */
const sinceMsMin = 1_000_000;

let filter: RunFilter = {
  statuses: [],
  deviceId: "",
  watcherId: "",
  attention: [],
  label: "",
  sinceMs: undefined,
};
let pagesWanted = 1;

/** True if there are older runs than those shown. */
export const hasOlder = signal(false);

export const runs = createCollection<Run>({
  async *pages(abort) {
    let pageToken = "";
    for (let page = 0; page < pagesWanted; page++) {
      const { statuses, deviceId, watcherId } = filter;
      const attention =
        filter.attention === "any" ? { wantsAttention: true } : { attention: [...filter.attention] };
      const answer = await api.listRuns(
        {
          ...{ pageSize, pageToken, statuses: [...statuses], deviceId, watcherId, ...attention },
          labels: filter.label === "" ? [] : [filter.label],
          ...(filter.sinceMs === undefined ? {} : { since: timestampFromMs(filter.sinceMs) }),
        },
        { signal: abort },
      );
      pageToken = answer.nextPageToken;
      hasOlder.value = pageToken !== "" && pagesWanted < pagesMax;
      yield answer.runs;
      if (pageToken === "") return;
    }
  },
  get: async (runId) => {
    const { run } = await api.getRun({ runId });
    return run && passes(run) ? run : undefined;
  },
  idOf: (run) => run.id,
  // Ids are in the order of creation.
  orderOf: (run) => run.id,
  isDescending: true,
  isNamed: false,
});

function passes(run: Run): boolean {
  return (
    (filter.statuses.length === 0 || filter.statuses.includes(run.status)) &&
    (filter.deviceId === "" || filter.deviceId === run.deviceId) &&
    (filter.watcherId === "" || filter.watcherId === run.watcherId) &&
    (filter.label === "" || hasLabel(run.deviceId, filter.label)) &&
    (filter.sinceMs === undefined || (run.dueAt !== undefined && timestampMs(run.dueAt) >= filter.sinceMs)) &&
    (filter.attention === "any"
      ? run.attention.length > 0
      : filter.attention.length === 0 || filter.attention.some((reason) => run.attention.includes(reason)))
  );
}

function hasLabel(deviceId: string, label: string): boolean {
  const device = devices.find(deviceId);
  return device !== undefined && [...device.labels, ...device.reportedLabels].includes(label);
}

/** Stores a run from a stream. */
export function putRun(run: Run): void {
  if (runs.find(run.id) || runs.state.value === "ready") {
    if (passes(run)) runs.put(run);
    else runs.remove(run.id);
  }
}

export function setFilter(wanted: RunFilter): void {
  const isSame =
    wanted.deviceId === filter.deviceId &&
    wanted.watcherId === filter.watcherId &&
    String(wanted.attention) === String(filter.attention) &&
    wanted.label === filter.label &&
    // The bound moves with the clock; the same choice is the same filter.
    Math.abs((wanted.sinceMs ?? 0) - (filter.sinceMs ?? 0)) < sinceMsMin &&
    wanted.statuses.join() === filter.statuses.join();
  if (isSame) return;
  filter = wanted;
  pagesWanted = 1;
  runs.clear();
  runs.resync();
}

export function showOlder(): void {
  if (!hasOlder.value) return;
  hasOlder.value = false;
  pagesWanted++;
  runs.resync();
}
