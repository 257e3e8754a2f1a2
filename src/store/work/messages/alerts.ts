import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";
import type { Look } from "../../pg/looks.ts";
import { storableJson } from "../../pg/values/storable.ts";
import { unnest } from "../../pg/values/unnest.ts";

/**
 * Alerts for an org: deliveries (deliveries.ts) to every destination that takes alerts.
 */

export type Alert = {
  orgId: string;
  kind: "watcher.paused" | "device.away" | "budget.reached";
  watcherId?: string | null;
  runId?: string | null;
  subject: Record<string, unknown>;
  /** An alert with an already used key is not sent again. Undefined: sent each time. */
  onceKey?: string;
};

/** Writes alerts for all destinations that take alerts; returns the number of rows. */
export async function alert(tx: Db, alerts: readonly Alert[]): Promise<number> {
  if (alerts.length === 0) return 0;
  const input = unnest("i", alerts, {
    org_id: ["text", (a) => a.orgId],
    kind: ["text", (a) => a.kind],
    watcher_id: ["uuid", (a) => a.watcherId ?? null],
    run_id: ["uuid", (a) => a.runId ?? null],
    subject: ["text", (a) => storableJson(a.subject)],
    once_key: ["text", (a) => a.onceKey ?? null],
  });
  const { numAffectedRows } = await sql`
    insert into delivery (org_id, id, destination_id, lane, watcher_id, run_id, kind, subject, once_key)
    select i.org_id, n.id, d.id, coalesce(i.watcher_id, n.id), i.watcher_id, i.run_id, i.kind, i.subject::jsonb, i.once_key
    from ${input} join destination d on d.org_id = i.org_id and d.takes_alerts
      cross join lateral (select uuid_v7() as id where i.ord > 0 and d.id is not null) n
    order by i.ord
    on conflict (org_id, destination_id, once_key) where once_key is not null do nothing
  `.execute(tx);
  return Number(numAffectedRows ?? 0);
}

/** Whether any destination takes alerts. */
export const hasTaker: Look<boolean> = {
  expression: sql`exists (select from destination where takes_alerts)`,
  read: (answer) => answer as boolean,
};

/**
 * Writes alerts of devices absent for a day, once per absence; returns the number of rows. Fleet
 * workers come and go, and are excluded.
 */
export async function alertAway(tx: Db): Promise<number> {
  const { rows } = await sql<{ orgId: string; deviceId: string; label: string; since: string }>`
    select p.org_id as "orgId", p.device_id as "deviceId", d.label,
      to_char(p.last_beat_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') as since
    from presence p join device d on d.org_id = p.org_id and d.id = p.device_id
    where p.last_beat_at < now() - interval '1 day' and p.last_beat_at > now() - interval '3 days' and not d.is_worker
      and exists (select from destination t where t.org_id = p.org_id and t.takes_alerts)
      and not exists (select from delivery y where y.org_id = p.org_id
        and y.once_key = 'away ' || p.device_id || ' ' || to_char(p.last_beat_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"'))
    limit 1000
  `.execute(tx);
  return alert(
    tx,
    rows.map(({ orgId, deviceId, label, since }) => ({
      orgId,
      kind: "device.away",
      subject: { deviceId, label, since },
      onceKey: `away ${deviceId} ${since}`,
    })),
  );
}
