import { setTimeout as delay } from "node:timers/promises";
import { lookBackMs } from "../checker/slots.ts";
import type { Record } from "../history.ts";
import type { Cluster } from "./cluster.ts";

const sampleMs = 1_000;
/** Every so many samples the schedules are looked at, too. */
const schedulesEvery = 5;

/** Reads the database from outside during the faults, and records samples for the checker. */
export async function observe(options: {
  cluster: Cluster;
  record: Record;
  ttlMs: number;
  stop: AbortSignal;
}): Promise<void> {
  const { cluster, record, ttlMs, stop } = options;
  for (let sample = 1; !stop.aborted; sample++) {
    const isRight = () => (cluster.clock?.aheadMs ?? 0) === 0;
    const wasRight = isRight();
    try {
      const silent = await cluster.query<{
        run: string;
        token: string;
        deviceSilentMs: number;
        attemptSilentMs: number | null;
      }>(
        `select * from (
          select r.id as run, r.attempt_token as token,
            (extract(epoch from clock_timestamp() - greatest(p.last_beat_at, p.connected_at, r.last_beat_at, r.claimed_at))
              * 1000)::float8 as "deviceSilentMs",
            (extract(epoch from clock_timestamp() - r.last_beat_at) * 1000)::float8 as "attemptSilentMs"
          from run r left join presence p on p.org_id = r.org_id and p.device_id = r.device_id
          where r.status <> 'pending') s
        where "deviceSilentMs" > $1 or "attemptSilentMs" > $1`,
        [ttlMs],
      );
      const schedules = sample % schedulesEvery === 0 ? await schedulesOf(cluster) : undefined;
      if (wasRight && isRight()) {
        if (silent.length > 0) record({ kind: "sample", silent });
        if (schedules) record({ kind: "schedules", watchers: schedules });
      }
    } catch {
      // The database is away.
    }
    await delay(sampleMs, undefined, { signal: stop }).catch(() => {});
  }
}

/** In one statement, so that all rows are from one snapshot. */
async function schedulesOf(cluster: Cluster) {
  const ms = (column: string) => `(extract(epoch from ${column}) * 1000)::float8`;
  return cluster.query<{ watcher: string; nextSlotAt: number | null; slots: number[] }>(
    `select w.watcher_id as watcher, ${ms("w.next_slot_at")} as "nextSlotAt",
      coalesce((select array_agg(${ms("s.scheduled_for")}) from (
        select scheduled_for from run_all where org_id = w.org_id and watcher_id = w.watcher_id
        union all
        select scheduled_for from backlog where org_id = w.org_id and watcher_id = w.watcher_id) s
        where s.scheduled_for > now() - $1 * interval '1 ms'), '{}') as slots
    from schedule_position w where w.next_slot_at is not null`,
    [lookBackMs],
  );
}
