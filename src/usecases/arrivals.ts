/** A person for whom a provider of OpenID Connect vouches: who they are here, what they are, and a browser for them. */
import type { OidcConfig } from "../config.ts";
import * as identities from "../store/people/identities.ts";
import * as members from "../store/people/members.ts";
import { cutScopes } from "../store/people/roles.ts";
import * as signIns from "../store/people/sign-ins.ts";
import { type Db, transaction } from "../store/pg/database.ts";
import { type Arrival, add } from "./members.ts";
import type { Surroundings } from "./surroundings.ts";

type Role = members.Member["role"];

const strongestFirst: readonly Role[] = ["owner", "admin", "member"];
const allScopes = ["admin", "read", "write"];

export type Vouched = {
  issuer: string;
  subject: string;
  /** Undefined: the provider does not vouch for one. */
  email: string | undefined;
  name: string;
  groups: readonly string[];
};

/** The strongest role that the groups give; undefined: none. Pure. */
export function roleOf(config: Pick<OidcConfig, "roles">, groups: readonly string[]): Role | undefined {
  const given = new Set([...groups, "*"].map((group) => config.roles.get(group)));
  return strongestFirst.find((role) => given.has(role));
}

/**
 * Signs the person in, in the role that the provider's groups give where roles are configured, else as the member that they
 * are. Answers why not: no group of theirs has a role, they are no member, or nothing says who they are here.
 */
export async function admit(
  db: Db,
  config: OidcConfig,
  person: Vouched,
  options: { address: string; userAgent: string; signInMs: number; surroundings: Surroundings },
): Promise<
  | { secret: string; lifeMs: number; changed: Arrival | undefined; userId: string }
  | "role"
  | "member"
  | "email"
> {
  const { orgId } = config;
  const isMapped = config.roles.size > 0;
  const wanted = isMapped ? roleOf(config, person.groups) : undefined;
  if (isMapped && !wanted) return "role";
  const userId = await transaction(db, (tx) =>
    identities.findOrEnsure(tx, { ...person, isNewAllowed: isMapped }),
  );
  if (!userId) return person.email ? "member" : "email";
  const before = await members.find(db, { orgId, userId });
  if (!isMapped && !before) return "member";
  const changed =
    wanted && before?.role !== wanted
      ? await change(db, { person, userId, role: wanted, orgId }, options.surroundings)
      : undefined;
  const signIn = await transaction(db, async (tx) => {
    // The role is held until the commit: who changes it waits, and cuts this sign-in too.
    const role = await members.holdRole(tx, { orgId, userId });
    if (!role) return undefined;
    return signIns.start(tx, {
      orgId,
      userId,
      scopes: cutScopes(role, allScopes),
      method: "oidc",
      makerId: null,
      address: options.address,
      userAgent: options.userAgent,
      expiresInMs: options.signInMs,
    });
  });
  return signIn ? { secret: signIn.secret, lifeMs: options.signInMs, changed, userId } : "member";
}

/** The role that the provider says. The last owner stays one, whatever it says. */
async function change(
  db: Db,
  { person, userId, role, orgId }: { person: Vouched; userId: string; role: Role; orgId: string },
  surroundings: Surroundings,
): Promise<Arrival | undefined> {
  const owners = await members.owners(db, orgId);
  if (role !== "owner" && owners.length === 1 && owners[0] === userId) return undefined;
  return add(
    db,
    {
      ...{ orgId, userId, role },
      email: person.email ?? "",
      name: person.name,
      tokenScopes: [],
      actor: "pinion",
      caller: null,
      requestId: "",
    },
    surroundings,
  );
}
