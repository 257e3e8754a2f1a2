import type { Subscriber } from "../../scheduler/publisher.ts";
import type { Feed } from "./feed.ts";

/** Tells the feed the runs, turns and orgs' logs changed by a commit. */
export function feedSubscriber(feed: Pick<Feed, "workChanged" | "eventsAppended">): Subscriber {
  function changed(of: readonly { orgId: string; workId: string; isEnded?: boolean }[]): void {
    for (const { orgId, workId, isEnded = false } of of) feed.workChanged({ orgId, workId, isEnded });
  }

  function changedWithEvents(of: readonly { orgId: string; workId: string; isEnded?: boolean }[]): void {
    changed(of);
    for (const orgId of new Set(of.map((work) => work.orgId))) feed.eventsAppended(orgId);
  }

  return {
    recorded(runs) {
      for (const orgId of new Set(runs.map((run) => run.orgId))) feed.eventsAppended(orgId);
    },
    settled: (runs) =>
      changedWithEvents(
        runs.map(({ orgId, runId, action }) => ({ orgId, workId: runId, isEnded: action === "finished" })),
      ),
    kept: changedWithEvents,
    moved: (runs) => changedWithEvents(runs.map(({ orgId, runId }) => ({ orgId, workId: runId }))),
    cancelling: changed,
    turnsEnded: (turns) =>
      changedWithEvents(turns.map(({ orgId, turnId }) => ({ orgId, workId: turnId, isEnded: true }))),
    repliesKept: (replies) =>
      changedWithEvents(replies.map(({ orgId, turnId }) => ({ orgId, workId: turnId }))),
    turnsWithdrawn: (turns) => changed(turns.map(({ orgId, turnId }) => ({ orgId, workId: turnId }))),
    asked: (question) => changedWithEvents([question]),
    answered: changedWithEvents,
  };
}
