import type { SessionName } from "../store/work/service/presence.ts";
import type { Logger } from "../telemetry/log.ts";
import type { Doorbell } from "./doorbell.ts";
import type { Rung } from "./placing/placing-pass.ts";
import type { QuestionBell } from "./questions.ts";

/**
 * All announcements after a commit. Every announcement is a hint: a lost hint costs seconds (the
 * sweep), never a run.
 */
export type Announcements = Doorbell &
  QuestionBell & {
    /** A newer session of a device opened; the replica with the older session ends it. */
    replaced(session: SessionName & { replicaId: string }): void;
    /** A device of the org has connected. */
    deviceOpened(orgId: string): void;
    /** The facts, labels or grants of devices of the org have changed. */
    devicesChanged(orgId: string): void;
    /** Held runs were placed; their devices have work. */
    placed(runs: readonly Rung[]): void;
    /** Held runs are somewhere else, or wait for something else. */
    moved(runs: readonly { orgId: string; runId: string }[]): void;
  };

/** Any part of the announcements; the subscriber receives no others. */
export type Subscriber = Partial<Announcements>;

/**
 * Announces the changes of each commit, once, to every subscriber, in the order of subscription:
 *
 *   completer, turn endings, dispatcher, hub, loops, use-cases
 *        │ recorded, settled, turnsEnded, …
 *        ▼
 *    publisher ──► telemetry, tails of output, feed, doorbell, placer, materializer, questions
 */
export type Publisher = Announcements & { subscribe(subscriber: Subscriber): void };

export function createPublisher({ log }: { log: Logger }): Publisher {
  const subscribers: Subscriber[] = [];
  const to =
    <Kind extends keyof Announcements>(kind: Kind) =>
    (subject: Parameters<Announcements[Kind]>[0]): void => {
      for (const subscriber of subscribers) {
        try {
          (subscriber[kind] as ((told: typeof subject) => void) | undefined)?.(subject);
        } catch (error) {
          // The commit stands, and the other subscribers are told.
          log.error({ err: error, kind }, "a subscriber failed to take an announcement");
        }
      }
    };
  return {
    subscribe: (subscriber) => void subscribers.push(subscriber),
    recorded: to("recorded"),
    settled(settled) {
      to("settled")(settled);
      const followers = settled.flatMap((run) => run.followers ?? []);
      if (followers.length > 0) to("recorded")(followers);
    },
    kept: to("kept"),
    cancelling: to("cancelling"),
    turnStarted: to("turnStarted"),
    turnsEnded: to("turnsEnded"),
    repliesKept: to("repliesKept"),
    turnsWithdrawn: to("turnsWithdrawn"),
    asked: to("asked"),
    answered: to("answered"),
    replaced: to("replaced"),
    deviceOpened: to("deviceOpened"),
    devicesChanged: to("devicesChanged"),
    placed: to("placed"),
    moved: to("moved"),
  };
}
