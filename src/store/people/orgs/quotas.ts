/**
 * The quotas of orgs. A count is cached for some seconds, plus the local replica's additions, and
 * is repeated before any refusal. So frequent creations, above all of runs, are counted rarely;
 * replicas that create much at once may exceed a quota by their creations within the cache time.
 */
import { sql } from "kysely";
import { refuse } from "../../../errors.ts";
import type { Db } from "../../pg/database.ts";

export type Noun = "runs" | "turns" | "watchers" | "devices" | "tokens";

/** The quota of each noun, unless the org's metadata has another ("runs_max": 500). */
export type QuotaDefaults = Readonly<Record<Noun, number>>;

export type Quota = { max: number; room: number };

export type Quotas = {
  /** The remaining quota of each org. */
  find(db: Db, noun: Noun, orgIds: readonly string[]): Promise<ReadonlyMap<string, Quota>>;
  /** The remaining quota of one org. */
  findRoom(db: Db, noun: Noun, orgId: string): Promise<Quota>;
  /** Adds `count` creations to the cached count. */
  add(noun: Noun, orgId: string, count: number): void;
  /**
   * Refuses with `resource_exhausted` if the org has reached its quota; otherwise counts a creation
   * by the caller.
   */
  requireRoom(db: Db, noun: Noun, orgId: string): Promise<void>;
};

/** Milliseconds that a count is cached while room is left, and while none is left. */
const believedMs = 5_000;
/** Age in milliseconds from which a use of a cached count has it repeated, without waiting. */
const agingMs = 3_000;
const fullBelievedMs = 100;
/** Maximum cached counts; the oldest is dropped first. */
const countsMax = 10_000;

type Count = { max: number; used: number; counted: number; at: number; isAging: boolean };

/** The cached counts. */
class Counts {
  readonly #defaults: QuotaDefaults;
  readonly #counts = new Map<string, Count>();
  readonly #underWay = new Map<string, Promise<void>>();

  constructor(defaults: QuotaDefaults) {
    this.#defaults = defaults;
  }

  /** Whether the cached count may be used without a new count. */
  isBelieved(noun: Noun, orgId: string): boolean {
    const count = this.#counts.get(keyOf(noun, orgId));
    if (!count) return false;
    const ageMs = performance.now() - count.at;
    if (count.used < count.max) return ageMs < believedMs;
    // Additions alone cause no refusal: some of them may have ended, or may not have been created.
    return count.counted >= count.max && ageMs < fullBelievedMs;
  }

  /**
   * Whether the count is to be repeated ahead of its end; true once for each count. An org that
   * creates something every second so never waits for one.
   */
  isAging(noun: Noun, orgId: string): boolean {
    const count = this.#counts.get(keyOf(noun, orgId));
    if (!count || count.isAging || performance.now() - count.at < agingMs) return false;
    count.isAging = true;
    return true;
  }

  roomOf(noun: Noun, orgId: string): Quota {
    const { max, used } = this.#counts.get(keyOf(noun, orgId)) ?? { max: this.#defaults[noun], used: 0 };
    return { max, room: Math.max(0, max - used) };
  }

  add(noun: Noun, orgId: string, made: number): void {
    const known = this.#counts.get(keyOf(noun, orgId));
    if (known) known.used += made;
  }

  async recount(db: Db, noun: Noun, orgIds: readonly string[]): Promise<void> {
    for (const { orgId, max, used } of await count(db, noun, orgIds, this.#defaults[noun])) {
      const key = keyOf(noun, orgId);
      this.#counts.delete(key);
      const [oldest] = this.#counts.keys();
      if (oldest !== undefined && this.#counts.size >= countsMax) this.#counts.delete(oldest);
      this.#counts.set(key, { max, used, counted: used, at: performance.now(), isAging: false });
    }
  }

  /** Counts for one org; callers at the same time share the count. */
  recountOnce(db: Db, noun: Noun, orgId: string): Promise<void> {
    // A transaction sees its own rows, and its failure is no other caller's.
    if (db.isTransaction) return this.recount(db, noun, [orgId]);
    const key = keyOf(noun, orgId);
    const counting =
      this.#underWay.get(key) ?? this.recount(db, noun, [orgId]).finally(() => this.#underWay.delete(key));
    this.#underWay.set(key, counting);
    return counting;
  }
}

const keyOf = (noun: Noun, orgId: string) => `${noun} ${orgId}`;

/** Without `ahead`, a pool for work across orgs, no count is repeated ahead of its end. */
export function createQuotas(defaults: QuotaDefaults, { ahead }: { ahead?: Db } = {}): Quotas {
  const counts = new Counts(defaults);
  const quotas: Quotas = {
    async find(db, noun, orgIds) {
      const unknown = orgIds.filter((orgId) => !counts.isBelieved(noun, orgId));
      if (unknown.length > 0) await counts.recount(db, noun, unknown);
      return new Map(orgIds.map((orgId) => [orgId, counts.roomOf(noun, orgId)]));
    },
    async findRoom(db, noun, orgId) {
      if (!counts.isBelieved(noun, orgId)) await counts.recountOnce(db, noun, orgId);
      // After a failure the next caller counts, and waits.
      else if (ahead && counts.isAging(noun, orgId)) counts.recountOnce(ahead, noun, orgId).catch(() => {});
      return counts.roomOf(noun, orgId);
    },
    add: (noun, orgId, made) => counts.add(noun, orgId, made),
    async requireRoom(db, noun, orgId) {
      await quotas.findRoom(db, noun, orgId);
      // Read again: callers that shared the count have taken room meanwhile.
      const { max, room } = counts.roomOf(noun, orgId);
      if (room > 0) return counts.add(noun, orgId, 1);
      refuse("resource_exhausted", `the org is at its limit of ${max} ${meanings[noun]}; ${advice[noun]}`, {
        retryAfterMs: retryAfterMs[noun],
      });
    },
  };
  return quotas;
}

/** The reason of a slot skipped for the quota. */
export function fullText(max: number): string {
  return `the org was at its limit of ${max} ${meanings.runs}`;
}

const meanings: Record<Noun, string> = {
  runs: "active runs",
  turns: "live turns",
  watchers: "watchers",
  devices: "devices, with open join codes",
  tokens: "tokens of people and services",
};

const advice: Record<Noun, string> = {
  runs: "wait until some have ended, cancel some, or have PINION_RUNS_PER_ORG raised",
  turns: "wait until some have ended, cancel some, or have PINION_TURNS_PER_ORG raised",
  watchers: "delete some, or have PINION_WATCHERS_PER_ORG raised",
  devices: "delete some, or have PINION_DEVICES_PER_ORG raised",
  tokens: "revoke some, or have PINION_TOKENS_PER_ORG raised",
};

/** Milliseconds. Runs and turns end by themselves; other things must be removed by people. */
const retryAfterMs: Record<Noun, number> = {
  runs: 10_000,
  turns: 5_000,
  watchers: 600_000,
  devices: 600_000,
  tokens: 600_000,
};

/** The count of each noun, as a scan of one org's part of an index. */
const used = {
  runs: sql`select count(*) from run r where r.org_id = o.id`,
  turns: sql`select count(*) from turn t where t.org_id = o.id`,
  watchers: sql`select count(*) from watcher w where w.org_id = o.id`,
  devices: sql`select (select count(*) from device d where d.org_id = o.id)
    + (select count(*) from join_code c where c.org_id = o.id and c.used_at is null and c.expires_at > now())`,
  tokens: sql`select count(*) from token t where t.org_id = o.id and t.kind <> 'dev' and t.revoked_at is null
    and (t.expires_at is null or t.expires_at > now())`,
} as const satisfies Record<Noun, unknown>;

async function count(
  db: Db,
  noun: Noun,
  orgIds: readonly string[],
  max: number,
): Promise<{ orgId: string; max: number; used: number }[]> {
  const key = `${noun}_max`;
  const { rows } = await sql<{ orgId: string; max: number; used: number }>`
    select o.id as "orgId", (${used[noun]}) as used,
      case when jsonb_typeof(o.metadata -> ${key}) = 'number' then (o.metadata ->> ${key})::numeric::bigint
        else ${max}::bigint end as max
    from org o where o.id = any(${orgIds}::text[])`.execute(db);
  return rows;
}
