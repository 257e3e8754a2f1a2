/** The loops of a replica: each repeats its pass until stopped (scheduler/loop.ts). */

import { startCounting } from "../scheduler/counting.ts";
import { startDeliverer } from "../scheduler/deliverer.ts";
import { type Expirer, startExpirer, startReaper } from "../scheduler/endings/reaper.ts";
import { type Loop, startLoop } from "../scheduler/loop.ts";
import type { Subscriber } from "../scheduler/publisher.ts";
import { startQuestions } from "../scheduler/questions.ts";
import { type Retained, startRetention } from "../scheduler/retention.ts";
import type { Clock } from "../scheduler/slots/clock.ts";
import { startMaterializer } from "../scheduler/slots/materializer.ts";
import { startReplanner } from "../scheduler/slots/replan.ts";
import { startBulks } from "../scheduler/starts/bulks.ts";
import { createSender } from "../server/destinations/sender.ts";
import type { HealthState } from "../server/http/health.ts";
import { startHealthLook } from "../server/http/probes.ts";
import type { PlatformHost } from "../server/platforms/host.ts";
import * as replicas from "../store/work/service/replicas.ts";
import type { Access } from "./access.ts";
import type { Foundation } from "./foundation.ts";
import type { Storage } from "./storage.ts";
import type { Work } from "./work.ts";

/** Loops woken by calls. */
export type Loops = { bulks: Loop; materializer: Loop; deliverer: Loop };

/**
 * Interval of checks of open streams' tokens in ms: a stream ends within 5 s of its token even if
 * the notification was lost.
 */
const tokensEveryMs = 4_000;
/**
 * Interval of checks for a failover of the database in ms, and of those without a sign of news.
 */
const incarnationEveryMs = 1_000;
const incarnationIdleMsMax = 15_000;
/**
 * Maximum interval of a replica's beats in ms; also at most a third of the TTL, the time of
 * validity of a beat.
 */
const replicaBeatMsMax = 10_000;

type Own = {
  health: HealthState;
  replica: replicas.Replica;
  judge: Clock;
  retained: Retained | undefined;
  platforms: PlatformHost;
  isStopping: () => boolean;
};

/** Starts all loops. The beat of `replica` goes on until `isStopping`. */
export function startLoops(
  foundation: Foundation,
  storage: Storage,
  access: Access,
  work: Work,
  own: Own,
): Loops {
  const { hub, feed, inbox, publisher } = work;
  const woken = startWoken(foundation, storage, access, work, own);
  const { materializer, expirer, questions, deliverer, bulks, replanner } = woken;
  const sweep = repeat(foundation, "sweep", foundation.config.sweepIntervalMs, () => hub.sweep());
  const all = [
    ...Object.values(woken),
    sweep,
    ...startLooks(foundation, storage, own),
    ...startRegular(foundation, storage, access, work, own),
  ];
  publisher.subscribe(wakingAfterCommits({ materializer, expirer, questions, deliverer }));
  inbox.add({
    onResync() {
      feed.introduce();
      sweep.poke();
    },
  });
  own.judge.onBack(() => replanner.now());
  storage.incarnation.onChange(() => hub.moveAll("the database failed over; connect again"));
  foundation.opened.defer(async () => {
    await Promise.all(all.map((loop) => loop.stop()));
  });
  return { bulks, materializer, deliverer };
}

function repeat({ log }: Foundation, name: string, ms: number, pass: () => Promise<unknown>): Loop {
  return startLoop({ name, log, pass: () => pass().then(() => ms) });
}

/** Repeats from `ms` after now what the start of the replica has done once. */
function goOn({ log }: Foundation, name: string, ms: number, pass: () => Promise<unknown>): Loop {
  return startLoop({ name, log, firstAfterMs: ms, pass: () => pass().then(() => ms) });
}

/** What the passes over runs have in common. */
function passOptions(
  { config, log }: Foundation,
  storage: Storage,
  { quotas }: Access,
  { publisher }: Work,
  { judge }: Own,
) {
  return {
    ...{ db: storage.work.db, looks: storage.looks, log, judge, sweepMs: config.sweepIntervalMs },
    policy: { ...config.failures, quotas },
    doorbell: publisher,
  };
}

/** Loops that a commit, a call or an edit wakes. */
function startWoken(foundation: Foundation, storage: Storage, access: Access, work: Work, own: Own) {
  const { config, log, metrics, clock } = foundation;
  const { db } = storage.work;
  const { looks } = storage;
  const { feed, publisher, hold } = work;
  const { judge } = own;
  const common = passOptions(foundation, storage, access, work, own);
  const materializer = startMaterializer({
    ...common,
    quotas: access.quotas,
    clock,
    replicaId: foundation.replicaId,
    aheadMs: config.lookAheadMs,
    hold,
  });
  const { leaseMs, ...out } = config.destinations;
  return {
    materializer,
    expirer: startExpirer({ ...common, clock }),
    replanner: startReplanner({ db, log, judge, onReplanned: () => materializer.poke() }),
    questions: startQuestions({ db, looks, log, bell: publisher }),
    bulks: startBulks(common),
    deliverer: startDeliverer({
      ...{ db, looks, log, leaseMs, sweepMs: config.sweepIntervalMs },
      send: createSender({
        ...{ db, publicUrl: config.publicUrl, ...out, ...config.secrets },
        toPlatform: own.platforms.post,
      }),
      onEvents: (orgId) => feed.eventsAppended(orgId),
      onTried: metrics.delivered,
    }),
  };
}

/** Loops over what time alone changes. */
function startRegular(
  foundation: Foundation,
  storage: Storage,
  access: Access,
  work: Work,
  own: Own,
): Loop[] {
  const { config, telemetry } = foundation;
  const common = passOptions(foundation, storage, access, work, own);
  const { intervalMs } = config.reaper;
  return [
    repeat(foundation, "placing", config.sweepIntervalMs, () => work.placer.sweep()),
    startCounting(common),
    startReaper({ ...common, rules: config.reaper, intervalMs, onReaped: telemetry.reaped }),
    startRetention({
      ...{ ...common, days: config.retentionDays, conversationDays: config.conversationDays },
      begun: own.retained,
    }),
    repeat(foundation, "stream-tokens", tokensEveryMs, () => access.streams.endExpired()),
  ];
}

/** Looks at the database and the signs of life that a replica gives. */
function startLooks(foundation: Foundation, storage: Storage, own: Own): Loop[] {
  const { config, log } = foundation;
  const beatMs = Math.min(replicaBeatMsMax, config.session.ttlMs / 3);
  return [
    startHealthLook({
      db: storage.requests.db,
      answeredAgoMs: () => Math.min(storage.work.answeredAgoMs(), storage.requests.answeredAgoMs()),
      ...{ health: own.health, log },
    }),
    goOn(foundation, "incarnation", incarnationEveryMs, () =>
      storage.incarnation.lookIfNews(incarnationIdleMsMax),
    ),
    goOn(foundation, "replica-beat", beatMs, async () => {
      if (!own.isStopping()) await replicas.beat(storage.work.db, own.replica);
    }),
  ];
}

/** Wakes the loops with work from a commit. */
function wakingAfterCommits(
  loops: Readonly<Record<"materializer" | "questions" | "deliverer", Loop>> & { expirer: Expirer },
): Subscriber {
  return {
    recorded(runs) {
      loops.expirer.expect(runs);
      if (runs.some((run) => run.skipReason === "budget")) loops.deliverer.poke();
    },
    settled(runs) {
      // Due slots were waiting for the end of the run.
      if (runs.some((run) => run.hasBacklog)) loops.materializer.poke();
      if (runs.some((run) => run.notify || run.isWatcherPaused)) loops.deliverer.poke();
    },
    asked({ notify }) {
      loops.questions.poke();
      if (notify) loops.deliverer.poke();
    },
  };
}
