import type { MessageInitShape } from "@bufbuild/protobuf";
import { durationFromMs, durationMs } from "@bufbuild/protobuf/wkt";
import {
  RunStatus,
  type SearchRunsResponseSchema,
  type SummarizeRunsRequest,
  type SummarizeRunsResponseSchema,
} from "#gen/pinion/v1/run_pb.js";
import { refuse } from "../../errors.ts";
import * as rights from "../../store/people/devices/rights.ts";
import * as clock from "../../store/pg/clock.ts";
import type { Db } from "../../store/pg/database.ts";
import * as reports from "../../store/work/runs/reports.ts";
import * as runCounts from "../../store/work/runs/run-counts.ts";
import * as runs from "../../store/work/runs/runs.ts";
import * as searches from "../../store/work/runs/searches.ts";
import type { Principal } from "../access/principal.ts";
import { dateOf, timestampOf } from "./messages/moments.ts";
import { runMessage } from "./messages/run-message.ts";

const dayMs = 86_400_000;
/** As documented in the .proto. */
const daysMax = 90;
const spansMax = 1_000;
const spanMsDefault = 3_600_000;

/** How runs ended over time, and where most of them ran. */
export async function summarizeRuns(
  db: Db,
  orgId: string,
  request: SummarizeRunsRequest,
  watcherId: string | undefined,
): Promise<MessageInitShape<typeof SummarizeRunsResponseSchema>> {
  const end = request.end ? dateOf(request.end, "end") : await clock.now(db);
  const start = request.start ? dateOf(request.start, "start") : new Date(end.getTime() - dayMs);
  const spanMs = request.span ? durationMs(request.span) : spanMsDefault;
  const lengthMs = end.getTime() - start.getTime();
  if (lengthMs <= 0) refuse("invalid_argument", "end: must be after start", { field: "end" });
  if (lengthMs > daysMax * dayMs) {
    refuse("invalid_argument", `start: at most ${daysMax} days before the end`, { field: "start" });
  }
  if (lengthMs / spanMs > spansMax) {
    refuse("invalid_argument", `span: at most ${spansMax} lie between start and end; ask for longer ones`, {
      field: "span",
    });
  }
  const asked = { orgId, start, end, spanMs, watcherId, deviceId: request.deviceId || undefined };
  const { spans, busiest } = await runCounts.summarize(db, asked);
  return {
    start: timestampOf(start),
    end: timestampOf(end),
    counts: spans.map((count) => ({
      start: timestampOf(count.start),
      status: RunStatus[count.status.toUpperCase() as keyof typeof RunStatus],
      runs: BigInt(count.runs),
    })),
    busiest: busiest.map(({ deviceId, runs, busyMs }) => ({
      deviceId,
      runs: BigInt(runs),
      busy: durationFromMs(busyMs),
    })),
  };
}

/** Finds runs by id and by result. A hit in a hidden result is hidden, too. */
export async function searchRuns(
  db: Db,
  principal: Principal,
  query: string,
): Promise<MessageInitShape<typeof SearchRunsResponseSchema>> {
  const { orgId } = principal;
  const text = query.trim();
  const isId = /^[0-9a-f-]{4,36}$/i.test(text);
  const [begin, ended, results] = await Promise.all([
    isId ? searches.runsByBeginning(db, { orgId, beginning: text.slice(0, 36) }) : [],
    isId && text.length >= 6 ? searches.runsByEnd(db, { orgId, end: text }) : [],
    searches.results(db, { orgId, query: text }),
  ]);
  const readable = await readableDevices(db, principal, results.hits);
  const excerpts = new Map<string, string>([...begin, ...ended].map((id) => [id, ""]));
  for (const hit of results.hits) {
    const isReadable = hit.deviceId === null || readable.has(hit.deviceId);
    if (isReadable && !excerpts.has(hit.runId)) excerpts.set(hit.runId, hit.excerpt);
  }
  const found = await runs.findAll(db, { orgId, runIds: [...excerpts.keys()] });
  const rows = [...excerpts.keys()].flatMap((runId) => found.get(runId) ?? []);
  const told = await reports.findAll(db, { orgId, runIds: rows.map(({ id }) => id) });
  return {
    hits: rows.map((row) => ({
      run: runMessage(row, { report: told.get(row.id) }),
      excerpt: excerpts.get(row.id) ?? "",
    })),
    resultsSearched: results.searched,
  };
}

async function readableDevices(
  db: Db,
  { orgId, userId, tokenId, isEverywhere }: Principal,
  hits: readonly searches.ResultHit[],
): Promise<Set<string>> {
  const deviceIds = [...new Set(hits.flatMap(({ deviceId }) => deviceId ?? []))];
  if (isEverywhere) return new Set(deviceIds);
  const standings = await rights.standings(db, { orgId, who: { userId, tokenId }, deviceIds });
  return new Set(
    standings.filter((standing) => rights.rightTo("read", standing) !== null).map(({ deviceId }) => deviceId),
  );
}
