import type { Subscriber } from "../../scheduler/publisher.ts";
import type { Feed } from "./feed.ts";

/** Tells the feed the runs, turns and orgs' logs changed by a commit. */
export function feedSubscriber(feed: Pick<Feed, "runChanged" | "eventsAppended">): Subscriber {
  function changed(of: readonly { orgId: string; runId: string; isEnded?: boolean }[]): void {
    for (const { orgId, runId, isEnded = false } of of) feed.runChanged({ orgId, runId, isEnded });
  }

  function changedWithEvents(of: readonly { orgId: string; runId: string; isEnded?: boolean }[]): void {
    changed(of);
    for (const orgId of new Set(of.map((work) => work.orgId))) feed.eventsAppended(orgId);
  }

  return {
    recorded(runs) {
      for (const orgId of new Set(runs.map((run) => run.orgId))) feed.eventsAppended(orgId);
    },
    settled: (runs) => changedWithEvents(runs.map((run) => ({ ...run, isEnded: run.action === "finished" }))),
    kept: changedWithEvents,
    moved: changedWithEvents,
    cancelling: changed,
    turnsEnded: (turns) =>
      changedWithEvents(turns.map(({ orgId, turnId }) => ({ orgId, runId: turnId, isEnded: true }))),
    repliesKept: (replies) =>
      changedWithEvents(replies.map(({ orgId, turnId }) => ({ orgId, runId: turnId }))),
    turnsWithdrawn: (turns) => changed(turns.map(({ orgId, turnId }) => ({ orgId, runId: turnId }))),
    asked: (question) => changedWithEvents([question]),
    answered: changedWithEvents,
  };
}
