/** The secrets of an org, without their values: whose they are, and when they were set and used. */
import { sql } from "kysely";
import type { Db } from "../../pg/database.ts";

export type SecretHolder = "platform" | "destination" | "hook";

export type SecretRow = {
  holder: SecretHolder;
  /** The id of a platform; the slug of a destination or hook. */
  holderName: string;
  field: string;
  /** As stored: sealed, or a reference. It leaves the server in no answer. */
  stored: string;
  /** 0: set before versions were counted. */
  version: number;
  setAt: Date | null;
  /** The last use of the holder. */
  usedAt: Date | null;
  /** Until when the secret before is good as well. */
  pastUntil: Date | null;
};

/**
 * At most `limit` secrets in the order of holder, name and field, after `after`. Serves a list for
 * people: orgs have tens of secrets.
 */
export async function list(
  db: Db,
  options: { orgId: string; after: readonly [string, string, string]; limit: number },
): Promise<SecretRow[]> {
  const { orgId, after, limit } = options;
  const mark = sql`(marks -> field ->> 'version')::integer`;
  const { rows } = await sql<SecretRow>`
    with holder as (
      select 'platform' as holder, p.stable_id as "holderName", p.secrets, p.secret_marks as marks,
        greatest(i.last_in_at, i.last_out_at) as "usedAt", null::timestamptz as "pastUntil"
      from platform p
      left join platform_instance i on i.org_id = p.org_id and i.stable_id = p.stable_id
      where p.org_id = ${orgId}
      union all
      select 'destination', slug, secrets, secret_marks, last_delivered_at,
        case when past_secret is not null and past_secret_until > now() then past_secret_until end
      from destination where org_id = ${orgId}
      union all
      select 'hook', slug, jsonb_build_object('secret', secret),
        jsonb_build_object('secret', jsonb_build_object('version', secret_version, 'set_at', secret_set_at)),
        last_delivery_at, case when old_secret is not null and old_secret_until > now() then old_secret_until end
      from hook where org_id = ${orgId}
    )
    select holder, "holderName", field, stored, coalesce(${mark}, 0) as version,
      (marks -> field ->> 'set_at')::timestamptz as "setAt", "usedAt",
      case when holder <> 'destination' or field = 'signing_secret' then "pastUntil" end as "pastUntil"
    from holder cross join lateral jsonb_each_text(secrets) as each (field, stored)
    where (holder, "holderName", field) > (${after[0]}, ${after[1]}, ${after[2]})
    order by holder, "holderName", field
    limit ${limit}`.execute(db);
  return rows;
}
