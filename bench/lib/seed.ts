import { secretHash } from "../../src/values/ids.ts";
import { query } from "./cluster.ts";

/**
 * Rows in the form written by enrolment and CreateWatcher, inserted in bulk. Tokens are derived
 * from the device's number so that the load can derive them again.
 */

/** `count` orgs named org-0 … with an agent `bench`. */
export async function seedOrgs(url: string, count: number): Promise<void> {
  await query(
    url,
    `with orgs as (insert into org (id, name) select 'org-' || i, 'bench' from generate_series(0, $1::int - 1) i returning id),
      agents as (insert into agent (org_id, id, name) select id, 'bench', 'bench' from orgs)
    insert into agent_revision (org_id, agent_id, version, name, settings)
    select id, 'bench', 1, 'bench', '{}' from orgs`,
    [count],
  );
}

export type SeededDevice = { orgId: string; deviceId: string; installId: string; token: string };

/** `count` devices, dealt out to the orgs, each with a token. */
export async function seedDevices(
  url: string,
  options: { count: number; orgs: number; tokenOf: (index: number) => string; slots: number },
): Promise<SeededDevice[]> {
  const { rows } = await query(
    url,
    `insert into device (org_id, install_id, os, label, max_concurrency)
    select 'org-' || (i % $2::int), 'install-' || i, 'linux', 'device ' || i, $3::int from generate_series(0, $1::int - 1) i
    returning org_id, id, install_id`,
    [options.count, options.orgs, options.slots],
  );
  const devices = rows.map((row) => ({
    orgId: row.org_id as string,
    deviceId: row.id as string,
    installId: row.install_id as string,
    token: options.tokenOf(Number(row.install_id.slice("install-".length))),
  }));
  await query(
    url,
    `insert into token (org_id, kind, label, sha256, scopes, device_id)
    select org_id, 'dev', 'bench', sha256, '{device:run}', device_id
    from unnest($1::text[], $2::bytea[], $3::uuid[]) as t (org_id, sha256, device_id)`,
    [
      devices.map((device) => device.orgId),
      devices.map((device) => secretHash(device.token)),
      devices.map((device) => device.deviceId),
    ],
  );
  return devices;
}

/** The first of January: the next slot of the benches' watchers. */
export const nextYear = "date_trunc('year', now(), 'UTC') + interval '1 year'";

/**
 * Creates a service for each org with read and write access to every device, and returns the
 * tokens.
 */
export async function seedServices(
  url: string,
  orgs: number,
  tokenOf: () => string,
): Promise<{ orgId: string; token: string }[]> {
  const services = Array.from({ length: orgs }, (_, org) => ({ orgId: `org-${org}`, token: tokenOf() }));
  await query(
    url,
    `insert into token (org_id, kind, label, sha256, scopes, all_devices)
    select org_id, 'svc', 'bench', sha256, '{read,write}', true from unnest($1::text[], $2::bytea[]) as t (org_id, sha256)`,
    [services.map(({ orgId }) => orgId), services.map(({ token }) => secretHash(token))],
  );
  return services;
}

/**
 * `perDevice` watchers for each device, not due. Their schedule is due once a year, on the first of
 * January.
 */
export async function seedWatchers(url: string, perDevice: number): Promise<number> {
  const { rows } = await query(
    url,
    `with made as (
      insert into watcher (org_id, slug, name, agent_id, device_id, schedule, overlap)
      select d.org_id, 'w-' || d.install_id || '-' || i, 'bench', 'bench', d.id, '0 0 1 1 *', 'skip'
      from device d, generate_series(1, $1::int) i returning org_id, id
    ), positions as (
      insert into schedule_position (org_id, watcher_id, next_slot_at, next_due_at)
      select org_id, id, ${nextYear}, ${nextYear} from made
    ), revised as (
      insert into watcher_revision (org_id, watcher_id, version, name, prompt)
      select org_id, id, 1, 'bench', 'Say hello' from made returning 1
    ) select count(*)::int as count from revised`,
    [perDevice],
  );
  await query(url, "vacuum analyze watcher, schedule_position, watcher_revision, device, token");
  return rows[0].count as number;
}

/** Makes the watchers of {@link seedWatchers} due at a moment. */
export async function makeDue(url: string, at: Date): Promise<void> {
  await query(
    url,
    `update schedule_position s set next_slot_at = $1::timestamptz, next_due_at = $1::timestamptz
    from watcher w where w.org_id = s.org_id and w.id = s.watcher_id and w.status = 'active' and w.name = 'bench'`,
    [at],
  );
}

/**
 * Makes a watcher due at each of the moments; each device has a first due watcher before any device
 * has a second.
 */
export async function makeDueAt(url: string, moments: readonly Date[]): Promise<void> {
  await query(
    url,
    `with ranked as (
      select org_id, id, row_number() over (order by rank, id) as ord
      from (select org_id, id, row_number() over (partition by device_id order by id) as rank from watcher) w
    )
    update schedule_position s set next_slot_at = t.at, next_due_at = t.at
    from unnest($1::timestamptz[]) with ordinality as t (at, ord) join ranked r on r.ord = t.ord
    where s.org_id = r.org_id and s.watcher_id = r.id`,
    [moments],
  );
}

/** Runs of the last days with their slots, as they stand in the tables after they ended. */
export async function addFinished(url: string, count: number, outputCharacters = 0): Promise<void> {
  if (count <= 0) return;
  await query(
    url,
    `with w as materialized (select org_id, id, device_id, row_number() over (order by id) - 1 as ord from watcher)
    insert into run_finished (org_id, id, watcher_id, watcher_version, agent_id, agent_version, device_id, agent_kind,
      notification, source, window_start, window_end, due_at, created_at, timeout_ms, max_attempts, status, attempt, reason,
      past_attempts, finished_at, output_tail)
    select w.org_id, uuid_v7(), w.id, 1, 'bench', 1, w.device_id, '', 'none', 'scheduled', at - interval '1 hour', at, at, at,
      3600000, 1, 'completed', 1, '', '[]', at, repeat('x', $2::int)
    from generate_series(1, $1::int) i
      cross join lateral (select now() - (i % 600000) * interval '1 second' as at) t
      join w on w.ord = i % (select count(*) from watcher)`,
    [count, outputCharacters],
  );
  await query(url, "vacuum analyze run_finished");
}
