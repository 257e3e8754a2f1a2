import { sql } from "kysely";
import { refuse } from "../../../errors.ts";
import { type Keyring, newSigningSecret, type WantedSecret } from "../../../secrets.ts";
import { isUuid, newId } from "../../../values/ids.ts";
import { describe } from "../../people/changes.ts";
import { marksAfter } from "../../people/orgs/secret-marks.ts";
import { beginRotation, type Rotated } from "../../people/orgs/secret-rotation.ts";
import { type Db, transaction } from "../../pg/database.ts";
import { rehearsable } from "../../pg/dry-run.ts";
import type { Json } from "../../pg/schema/schema-columns.ts";
import { canonical } from "../../pg/values/canonical.ts";
import { onlyRow } from "../../pg/values/only-row.ts";
import * as events from "../service/events.ts";
import { placeOf, sealAll } from "./destination-secrets.ts";

/**
 * Destinations of an org: where deliveries.ts sends. Their secrets are sealed, and never in an
 * event or a list.
 */

export type DestinationKind = "webhook" | "slack" | "email" | "platform";

export type DestinationRow = {
  orgId: string;
  id: string;
  slug: string;
  name: string;
  kind: DestinationKind;
  config: Json;
  /** Sealed, or a reference. */
  secrets: Record<string, string>;
  pastSecret: string | null;
  pastSecretUntil: Date | null;
  takesAlerts: boolean;
  version: number;
  createdAt: Date;
  updatedAt: Date;
  lastDeliveredAt: Date | null;
  lastError: string;
};

export type DestinationValues = {
  name: string;
  kind: DestinationKind;
  config: Json;
  secrets: Record<string, WantedSecret>;
  takesAlerts: boolean;
};

const columns = sql`
  org_id as "orgId", id, slug, name, kind, config, secrets, past_secret as "pastSecret", past_secret_until as "pastSecretUntil",
  takes_alerts as "takesAlerts", version, created_at as "createdAt", updated_at as "updatedAt",
  last_delivered_at as "lastDeliveredAt", last_error as "lastError"`;

const marks = sql`secret_marks`;

type Named = { orgId: string; destination: string };

const match = ({ orgId, destination }: Named) =>
  isUuid(destination)
    ? sql`org_id = ${orgId} and id = ${destination}`
    : sql`org_id = ${orgId} and slug = ${destination}`;

/** The destination by id or slug. Refuses with `not_found`, also for another org's destination. */
export async function get(db: Db, named: Named): Promise<DestinationRow> {
  const { rows } = await sql<DestinationRow>`
    select ${columns} from destination where ${match(named)}`.execute(db);
  return rows[0] ?? notFound(named.destination);
}

function notFound(destination: string, field?: string): never {
  refuse("not_found", `there is no destination "${destination}"`, field ? { field } : {});
}

/** The org's destinations by slug, at most `limit`; after `afterSlug` if given. */
export async function list(
  db: Db,
  options: { orgId: string; limit: number; afterSlug?: string | undefined },
): Promise<DestinationRow[]> {
  const after = options.afterSlug === undefined ? sql`true` : sql`slug > ${options.afterSlug}`;
  const { rows } = await sql<DestinationRow>`
    select ${columns} from destination where org_id = ${options.orgId} and ${after} order by slug limit ${options.limit}
  `.execute(db);
  return rows;
}

/** Destinations by id, across orgs. */
export async function findAll(
  db: Db,
  names: readonly { orgId: string; destinationId: string }[],
): Promise<Map<string, DestinationRow>> {
  const { rows } = await sql<DestinationRow>`
    select ${columns} from destination where (org_id, id) in (select * from unnest(
      ${names.map((name) => name.orgId)}::text[], ${names.map((name) => name.destinationId)}::uuid[]))
  `.execute(db);
  return new Map(rows.map((row) => [row.id, row]));
}

/** Maximum of each count: counting stops here. */
const countMax = 1_000;

/** Numbers of pending and of dead deliveries of each destination. */
export async function counts(
  db: Db,
  { orgId, ids }: { orgId: string; ids: readonly string[] },
): Promise<Map<string, { pending: number; dead: number }>> {
  const count = (state: "pending" | "dead") => sql`
    (select count(*)::int from (select 1 from delivery d where d.org_id = ${orgId} and d.destination_id = i.id
      and d.state = ${state} limit ${countMax}) c)`;
  const { rows } = await sql<{ id: string; pending: number; dead: number }>`
    select i.id, ${count("pending")} as pending, ${count("dead")} as dead from unnest(${ids as string[]}::uuid[]) i(id)
  `.execute(db);
  return new Map(rows.map(({ id, pending, dead }) => [id, { pending, dead }]));
}

type Keys = { keyring: Keyring };

/**
 * A new destination, with the event `destination.created`. Refuses with `already_exists` for a
 * taken slug.
 */
export function create(
  db: Db,
  options: Keys & {
    orgId: string;
    actor: string;
    slug: string;
    values: DestinationValues;
    isDryRun: boolean;
  },
): Promise<DestinationRow> {
  const { orgId, slug, values, actor, isDryRun } = options;
  return rehearsable(db, isDryRun, async (tx) => {
    const id = newId();
    const secrets = sealAll({ ...options, id }, {});
    const { rows } = await sql<DestinationRow>`
      insert into destination (org_id, id, slug, name, kind, config, secrets, secret_marks, takes_alerts)
      values (${orgId}, ${id}, ${slug}, ${values.name}, ${values.kind}, ${JSON.stringify(values.config)},
        ${JSON.stringify(secrets)}, ${marksAfter({}, secrets)}, ${values.takesAlerts})
      on conflict do nothing returning ${columns}`.execute(tx);
    const row =
      rows[0] ??
      refuse("already_exists", `a destination with the slug "${slug}" exists already`, { field: "slug" });
    await events.append(tx, orgId, [
      {
        kind: "destination.created",
        actor,
        data: { ...named(row), kind: row.kind, version: 1, ...fieldsOf(row) },
      },
    ]);
    return row;
  });
}

/**
 * Updates a destination to the values returned by `change`, with the event `destination.updated`;
 * an edit without a change writes nothing. Refuses with `not_found`, `failed_precondition` (another
 * kind), `aborted` (`expectedVersion`) and `invalid_argument` (a secret to keep that does not
 * exist).
 */
export function update(
  db: Db,
  options: Keys &
    Named & {
      actor: string;
      expectedVersion: number;
      change: (current: DestinationRow) => DestinationValues;
      isDryRun: boolean;
    },
): Promise<DestinationRow> {
  const { orgId, actor, expectedVersion } = options;
  return rehearsable(db, options.isDryRun, async (tx) => {
    const current = await lock(tx, options);
    const values = options.change(current);
    requireVersion(current, expectedVersion);
    requireKind(current, values.kind);
    const secrets = sealAll({ ...options, id: current.id, values }, current.secrets);
    const after = { ...current, ...values, secrets };
    const { changed, changes } = describe(fieldsOf(current), fieldsOf(after));
    const resealed = Object.keys({ ...current.secrets, ...secrets }).filter(
      (key) => current.secrets[key] !== secrets[key],
    );
    if (changed.length === 0 && resealed.length === 0) return current;
    const { rows } = await sql<DestinationRow>`
      update destination set name = ${values.name}, config = ${JSON.stringify(values.config)},
        secrets = ${JSON.stringify(secrets)}, secret_marks = ${marksAfter(current.secrets, secrets, marks)},
        takes_alerts = ${values.takesAlerts}, version = version + 1, updated_at = now()
      where org_id = ${orgId} and id = ${current.id} returning ${columns}`.execute(tx);
    const updated = onlyRow(rows);
    await events.append(tx, orgId, [
      {
        kind: "destination.updated",
        actor,
        data: {
          ...named(current),
          version: updated.version,
          changed: [...changed, ...resealed.map((key) => `secrets.${key}`)],
          changes,
        },
      },
    ]);
    return updated;
  });
}

/** Refuses with `aborted`; version 0 stands for any version. */
function requireVersion({ version }: DestinationRow, expectedVersion: number): void {
  if (expectedVersion === 0 || expectedVersion === version) return;
  refuse("aborted", `the destination is at version ${version}, not ${expectedVersion}; read it again`, {
    retryAfterMs: 0,
  });
}

/** Refuses with `failed_precondition`. */
function requireKind({ slug, kind }: DestinationRow, wanted: DestinationKind): void {
  if (wanted === kind) return;
  refuse(
    "failed_precondition",
    `"${slug}" is of kind ${kind} and stays so; delete it first, or choose another slug`,
    { field: "spec" },
  );
}

/**
 * Removes a destination with its deliveries, with the event `destination.deleted`. Refuses with
 * `not_found`, and `failed_precondition` while watchers notify the destination.
 */
export function remove(db: Db, options: Named & { actor: string }): Promise<void> {
  const { orgId, actor } = options;
  return transaction(db, async (tx) => {
    const current = await lock(tx, options, "update");
    const { rows } = await sql<{ slug: string }>`
      select slug from watcher where org_id = ${orgId} and notify @> ${JSON.stringify([{ to: current.slug }])}::jsonb
      order by slug limit 10`.execute(tx);
    if (rows.length > 0) {
      refuse(
        "failed_precondition",
        `watchers notify "${current.slug}": ${rows.map((row) => row.slug).join(", ")}; take it out of their notify first`,
      );
    }
    await sql`delete from destination where org_id = ${orgId} and id = ${current.id}`.execute(tx);
    await events.append(tx, orgId, [
      { kind: "destination.deleted", actor, data: { ...named(current), kind: current.kind } },
    ]);
  });
}

/**
 * Creates a new signing secret of a webhook; the old secret also signs during the overlap. Returns
 * the secret with the destination.
 */
export function rotate(
  db: Db,
  options: Keys & Named & { actor: string; overlapMs: number },
): Promise<{ destination: DestinationRow; secret: string }> {
  const { orgId, actor, overlapMs, keyring } = options;
  return transaction(db, async (tx) => {
    const current = await lock(tx, options);
    if (current.kind !== "webhook") {
      refuse("failed_precondition", `"${current.slug}" is of kind ${current.kind}; only webhooks are signed`);
    }
    const secret = newSigningSecret();
    const secrets = {
      ...current.secrets,
      signing_secret: keyring.seal(secret, placeOf({ orgId, id: current.id, field: "signing_secret" })),
    };
    const { rows } = await sql<DestinationRow>`
      update destination set secrets = ${JSON.stringify(secrets)},
        secret_marks = ${marksAfter(current.secrets, secrets, marks)}, version = version + 1, updated_at = now(),
        past_secret = ${overlapMs > 0 ? (current.secrets.signing_secret ?? null) : null},
        past_secret_until = now() + ${overlapMs} * interval '1 ms'
      where org_id = ${orgId} and id = ${current.id} returning ${columns}`.execute(tx);
    const destination = onlyRow(rows);
    const data = { ...named(current), version: destination.version, overlap_ms: overlapMs };
    await events.append(tx, orgId, [{ kind: "destination.rotated", actor, data }]);
    return { destination, secret };
  });
}

/**
 * The slugs of the destinations that a watcher names by slug or id, locked until the end of the
 * transaction, so that no destination is deleted meanwhile. Refuses with `not_found`.
 */
export async function requireAll(
  tx: Db,
  options: { orgId: string; destinations: readonly string[]; field: string },
): Promise<Map<string, string>> {
  const { orgId } = options;
  const wanted = [...new Set(options.destinations)];
  if (wanted.length === 0) return new Map();
  const { rows } = await sql<{ id: string; slug: string }>`
    select id, slug from destination
    where org_id = ${orgId} and (slug = any(${wanted}::text[]) or id = any(${wanted.filter(isUuid)}::uuid[]))
    order by id for key share`.execute(tx);
  return new Map(
    wanted.map((name) => {
      const row = rows.find(({ id, slug }) => slug === name || id === name.toLowerCase());
      return [name, row?.slug ?? notFound(name, options.field)];
    }),
  );
}

async function lock(tx: Db, named: Named, how: "no key update" | "update" = "no key update") {
  const { rows } = await sql<DestinationRow>`
    select ${columns} from destination where ${match(named)} for ${sql.raw(how)}`.execute(tx);
  return rows[0] ?? notFound(named.destination);
}

/**
 * Like platforms.rotateSecrets, for the secrets of destinations; `stableId` is the destination's
 * slug.
 */
export function rotateSecrets(db: Db, keyring: Keyring): Promise<Rotated> {
  return transaction(db, async (tx) => {
    // An org has a handful of destinations; the destinations of all orgs fit into one transaction.
    const { rows } =
      await sql<DestinationRow>`select ${columns} from destination order by org_id, id for no key update`.execute(
        tx,
      );
    const rotation = beginRotation(keyring);
    for (const row of rows) {
      const reseal = (stored: string, field: string) =>
        rotation.reseal(stored, placeOf({ ...row, field }), row.slug);
      const secrets = Object.fromEntries(
        Object.entries(row.secrets).map(([field, stored]) => [field, reseal(stored, field)]),
      );
      const past = row.pastSecret && reseal(row.pastSecret, "signing_secret");
      const isSame = Object.entries(secrets).every(([field, sealed]) => sealed === row.secrets[field]);
      if (isSame && past === row.pastSecret) continue;
      await sql`update destination set secrets = ${JSON.stringify(secrets)}, past_secret = ${past}
        where org_id = ${row.orgId} and id = ${row.id}`.execute(tx);
    }
    return rotation.finish(tx);
  });
}

/** The fields of a destination in events, without secrets. */
function fieldsOf(values: Pick<DestinationRow, "name" | "config" | "takesAlerts">): Json {
  return {
    name: values.name,
    takes_alerts: values.takesAlerts,
    config: JSON.parse(canonical(values.config)),
  };
}

const named = ({ id, slug }: { id: string; slug: string }): Json => ({ destination_id: id, slug });
