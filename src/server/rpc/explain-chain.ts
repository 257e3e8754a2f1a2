/** The chain of a run, and the reasons why its followers were not started. */
import { create } from "@bufbuild/protobuf";
import { type ChainLink, ChainLinkSchema, RunStatus } from "#gen/pinion/v1/run_pb.js";
import { inputOf, judge } from "../../scheduler/starts/chains.ts";
import type { Db } from "../../store/pg/database.ts";
import * as reports from "../../store/work/runs/reports.ts";
import type { RunRow } from "../../store/work/runs/runs.ts";
import * as starts from "../../store/work/runs/starts.ts";
import * as windows from "../../store/work/runs/windows.ts";
import * as events from "../../store/work/service/events.ts";
import { runStatuses } from "../enums.ts";

export async function explainChain(db: Db, run: RunRow): Promise<ChainLink[]> {
  const { orgId, id: runId, watcherId } = run;
  const chain = await starts.listChain(db, { orgId, runId });
  const followers = await starts.listFollowers(db, [{ orgId, watcherId }]);
  if (chain.length === 0 && followers.length === 0) return [];
  const depth = chain.find((link) => link.runId === runId)?.depth ?? 0;
  const links = chain.map((link) =>
    create(ChainLinkSchema, {
      runId: link.runId,
      watcherId: link.watcherId,
      watcherSlug: link.watcherSlug ?? "",
      status: runStatuses[link.status as RunRow["status"]],
      depth: link.depth,
    }),
  );
  if (links.length === 0) {
    const { watcherSlug, status } = run;
    links.push(
      create(ChainLinkSchema, {
        runId,
        watcherId,
        watcherSlug: watcherSlug ?? "",
        status: runStatuses[status],
        depth,
      }),
    );
  }
  const started = new Set(chain.map((link) => link.watcherId));
  for (const follower of followers.filter((one) => !started.has(one.watcherId))) {
    links.push(
      create(ChainLinkSchema, {
        watcherId: follower.watcherId,
        watcherSlug: follower.slug,
        status: RunStatus.UNSPECIFIED,
        depth: depth + 1,
        reason: await whyNot(db, run, follower),
      }),
    );
  }
  return links;
}

/** The current condition's verdict; for a true condition, what stood in the way at the end. */
async function whyNot(db: Db, run: RunRow, { slug, condition }: starts.Follower): Promise<string> {
  if (!run.finishedAt) return "the run before it has not ended";
  if (run.status === "skipped") return "a skipped slot starts nothing";
  const { orgId, id: runId } = run;
  const [window] = await windows.list(db, { orgId, runId, limit: 1 });
  const report = (await reports.findAll(db, { orgId, runIds: [runId] })).get(runId);
  const { result, structured, output } = (window?.extractedData ?? {}) as Record<string, unknown>;
  const verdict = judge(
    condition,
    inputOf({
      run: { runId, watcherSlug: run.watcherSlug, source: run.source, finishedAt: run.finishedAt },
      status: run.status,
      reason: run.reason,
      attempt: run.attempt,
      exitCode: run.exitCode ?? undefined,
      output: typeof output === "string" ? output : run.outputTail,
      answer: { result: typeof result === "string" ? result : (report?.result ?? ""), structured },
      attention: report?.attention ?? [],
    }),
  );
  if (verdict === true) {
    const failed = await events.list(db, { orgId, runId, kinds: ["watcher.after_failed"], limit: 100 });
    const told = failed.find(({ data }) => (data as { follower?: string }).follower === slug);
    if (told) return String((told.data as { reason?: string }).reason ?? "");
    return "its condition is true now; it was not, or something else stood in the way, when the run ended";
  }
  return verdict === false ? "its condition was false" : `its condition has an error: ${verdict.error}`;
}
