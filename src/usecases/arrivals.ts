/**
 * The arrival of a person by OpenID Connect: the person and the role in the org, and a signed-in
 * browser.
 */
import type { OidcConfig } from "../config.ts";
import * as identities from "../store/people/credentials/identities.ts";
import { cutScopes } from "../store/people/credentials/roles.ts";
import * as signIns from "../store/people/credentials/sign-ins.ts";
import * as members from "../store/people/orgs/members.ts";
import { type Db, transaction } from "../store/pg/database.ts";
import { type Arrival, add } from "./members.ts";
import type { Surroundings } from "./surroundings.ts";

type Role = members.Member["role"];

const strongestFirst: readonly Role[] = ["owner", "admin", "member"];
const allScopes = ["admin", "read", "write"];

export type Vouched = {
  issuer: string;
  subject: string;
  /** Undefined: the provider has verified none. */
  email: string | undefined;
  name: string;
  groups: readonly string[];
};

/** The strongest role of the groups; undefined for groups without a role. Pure. */
function roleOf(config: Pick<OidcConfig, "roles">, groups: readonly string[]): Role | undefined {
  const given = new Set([...groups, "*"].map((group) => config.roles.get(group)));
  return strongestFirst.find((role) => given.has(role));
}

/**
 * Signs the person in: with the role of the provider's groups if roles are configured, otherwise as
 * a member of the org. Returns the reason of a refusal: no group of the person has a role, the
 * person is no member, or the provider's answer matches no person.
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
    // The role is locked until the commit, so that a change of the role waits, and then ends this
    // sign-in, too.
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

/** Sets the role of the provider's groups. The last owner stays an owner in any case. */
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
