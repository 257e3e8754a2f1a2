/** Edits of hooks by people; each is one transaction. */
import { randomBytes, randomUUID } from "node:crypto";
import { deliveryNames, requireExpression } from "../cel/expression.ts";
import { Refusal, refuse } from "../errors.ts";
import { isReference, type Keyring, newSigningSecret, requireReference } from "../secrets.ts";
import { describe } from "../store/people/changes.ts";
import * as requests from "../store/people/requests.ts";
import { type Db, transaction } from "../store/pg/database.ts";
import { rehearsable } from "../store/pg/dry-run.ts";
import * as events from "../store/work/service/events.ts";
import * as hooks from "../store/work/watchers/hooks.ts";
import * as watchers from "../store/work/watchers/watchers.ts";

type Values = Pick<hooks.HookRow, "kind" | "filter" | "mapping" | "ratePerMinute" | "isDisabled"> & {
  /** Id or slug. */
  watcher: string;
};
type Decided = Pick<hooks.HookRow, "watcherId" | "filter" | "mapping" | "ratePerMinute" | "isDisabled">;
const decided = ({ watcherId, filter, mapping, ratePerMinute, isDisabled }: Decided) => ({
  ...{ watcherId, filter, mapping, ratePerMinute, isDisabled },
});
type Asked = { orgId: string; actor: string; hook: string };
type Made = { hook: hooks.HookRow; secret: string };

function checkValues(values: Values): void {
  requireExpression(values.filter, deliveryNames, "spec.filter");
  requireExpression(values.mapping, deliveryNames, "spec.mapping");
}

/**
 * The given secret, or a new secret if none is given; a secret of Standard Webhooks is base64. A
 * reference stays a reference.
 */
function secretOf(kind: hooks.HookKind, given: string): string {
  if (isReference(given)) {
    requireReference(given, "secret");
    return given;
  }
  if (given === "") {
    return kind === "standard" ? newSigningSecret() : randomBytes(32).toString("hex");
  }
  const bytes = Buffer.from(given.replace(/^whsec_/, ""), "base64");
  if (kind === "standard" && (bytes.length < 24 || bytes.length > 64)) {
    refuse("invalid_argument", "secret: must be base64 of 24 to 64 bytes", { field: "secret" });
  }
  return given;
}

/** The stored form of a secret: sealed for its place, or a reference to a secret of the server. */
function stored(keyring: Keyring, secret: string, hook: Pick<hooks.HookRow, "orgId" | "id">): string {
  return isReference(secret) ? secret : keyring.seal(secret, hooks.placeOf(hook));
}

/**
 * Whether the stored secret of the hook equals the given secret. A stored secret that cannot be
 * opened counts as different.
 */
function isStored(keyring: Keyring, secret: string, hook: hooks.HookRow): boolean {
  if (isReference(secret) || isReference(hook.secret)) return secret === hook.secret;
  try {
    return keyring.open(hook.secret, hooks.placeOf(hook)) === secret;
  } catch (error) {
    if (error instanceof Refusal) return false;
    throw error;
  }
}

/**
 * The secret as shown once to its maker; a reference is not shown, because the operator has its
 * secret.
 */
const shownOnce = (secret: string) => (isReference(secret) ? "" : secret);

/** The watcher of a hook, which is not removed before the commit. Refuses with `not_found`. */
async function getHeld(tx: Db, named: { orgId: string; watcher: string }): Promise<watchers.Watcher> {
  const watcher = await watchers.lock(tx, { ...named, for: "reference" });
  return watchers.get(tx, { ...named, watcher });
}

/** A new hook, with the event `hook.created`. */
export function create(
  db: Db,
  options: {
    orgId: string;
    actor: string;
    slug: string;
    values: Values;
    secret: string;
    requestId: string;
    keyring: Keyring;
    isDryRun: boolean;
  },
): Promise<Made> {
  const { orgId, actor, values, requestId } = options;
  checkValues(values);
  const secret = secretOf(values.kind, options.secret);
  const request = { orgId, actor, requestId, rpc: "HookService/CreateHook" };
  return rehearsable(db, options.isDryRun, async (tx) => {
    const made = await requests.begin(tx, request);
    if (made) return { hook: await hooks.get(tx, { orgId, hook: made.hook_id }), secret: "" };
    const watcher = await getHeld(tx, { orgId, watcher: values.watcher });
    const id = randomUUID();
    const slug = options.slug || `${watcher.slug.slice(0, 50)}-${values.kind.replace("_", "-")}`;
    const sealed = stored(options.keyring, secret, { orgId, id });
    const { kind, filter, mapping, ratePerMinute, isDisabled } = values;
    const isNew = await hooks.insert(tx, {
      ...{ orgId, id, slug, kind, filter, mapping, ratePerMinute, isDisabled },
      ...{ watcherId: watcher.id, secret: sealed, createdBy: actor },
    });
    if (!isNew) refuse("already_exists", `a hook with the slug "${slug}" exists already`, { field: "slug" });
    await requests.record(tx, request, { hook_id: id });
    const hook = await hooks.get(tx, { orgId, hook: id });
    await events.append(tx, orgId, [
      { kind: "hook.created", actor, watcherId: watcher.id, data: { hook: slug, hook_kind: kind } },
    ]);
    return { hook, secret: shownOnce(secret) };
  });
}

/**
 * Milliseconds for which the old secret still verifies deliveries after an edit with a new secret.
 */
export const overlapMsDefault = 86_400_000;

/** Edits a hook, with the event `hook.updated`; an edit that changes nothing writes nothing. */
export function update(
  db: Db,
  options: Asked & {
    expectedVersion: number;
    change: (hook: hooks.HookRow) => Values;
    /** The hook's new secret; empty: the secret stays. */
    secret: string;
    keyring: Keyring;
    isDryRun: boolean;
  },
): Promise<hooks.HookRow> {
  const { orgId, actor, keyring } = options;
  return rehearsable(db, options.isDryRun, async (tx) => {
    const { id } = await hooks.get(tx, options);
    await hooks.lock(tx, { orgId, id });
    const current = await hooks.get(tx, { orgId, hook: id });
    if (options.expectedVersion !== 0 && options.expectedVersion !== current.version) {
      refuse(
        "aborted",
        `the hook is at version ${current.version}, not ${options.expectedVersion}; read it again`,
        {
          retryAfterMs: 0,
        },
      );
    }
    const values = options.change(current);
    checkValues(values);
    if (values.kind !== current.kind) {
      refuse("invalid_argument", "spec.kind: cannot be changed; make another hook", { field: "spec.kind" });
    }
    const watcher = await getHeld(tx, { orgId, watcher: values.watcher });
    const secret = options.secret === "" ? "" : secretOf(values.kind, options.secret);
    const isRotated = secret !== "" && !isStored(keyring, secret, current);
    const after = { ...values, watcherId: watcher.id };
    const { changed } = describe(decided(current), decided(after));
    if (changed.length === 0 && !isRotated) return current;
    if (isRotated) {
      const next = stored(keyring, secret, current);
      await hooks.rotate(tx, { orgId, id, overlapMs: overlapMsDefault, secret: next });
    }
    if (changed.length > 0) await hooks.update(tx, { ...after, orgId, id });
    const hook = await hooks.get(tx, { orgId, hook: id });
    await events.append(tx, orgId, [
      {
        kind: "hook.updated",
        actor,
        watcherId: watcher.id,
        data: {
          ...{ hook: hook.slug, version: hook.version },
          changed: [...changed, ...(isRotated ? ["secret"] : [])],
        },
      },
    ]);
    return hook;
  });
}

export function rotate(
  db: Db,
  options: Asked & { secret: string; overlapMs: number; keyring: Keyring },
): Promise<Made> {
  const { orgId, actor, overlapMs, keyring } = options;
  return transaction(db, async (tx) => {
    const { id, kind } = await hooks.get(tx, options);
    const secret = secretOf(kind, options.secret);
    await hooks.rotate(tx, { orgId, id, overlapMs, secret: stored(keyring, secret, { orgId, id }) });
    const hook = await hooks.get(tx, { orgId, hook: id });
    await events.append(tx, orgId, [
      { kind: "hook.rotated", actor, watcherId: hook.watcherId, data: { hook: hook.slug } },
    ]);
    return { hook, secret: shownOnce(secret) };
  });
}

export function remove(db: Db, options: Asked): Promise<void> {
  const { orgId, actor } = options;
  return transaction(db, async (tx) => {
    const { id, slug, watcherId } = await hooks.get(tx, options);
    await hooks.remove(tx, { orgId, id });
    await events.append(tx, orgId, [{ kind: "hook.deleted", actor, watcherId, data: { hook: slug } }]);
  });
}
