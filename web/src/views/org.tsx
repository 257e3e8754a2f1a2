/** The org: its members, and the tokens of services and commands. */
import { durationFromMs } from "@bufbuild/protobuf/wkt";
import { useSignal } from "@preact/signals";
import { type Member, MemberRole } from "#gen/pinion/v1/org_pb.js";
import { type Token, TokenKind, TokenService } from "#gen/pinion/v1/token_pb.js";
import { caller, clientOf, explainError, may, maySeeOrgs, orgs } from "../data/api.ts";
import { allPages, useReading } from "../data/reading.ts";
import { Copyable } from "../parts/copy.tsx";
import { closeDialog, confirm, Dialog, DialogEnd, openDialog } from "../parts/dialog.tsx";
import { ReadingState, Table } from "../parts/table.tsx";
import { Ago } from "../parts/time.tsx";
import { linkTo, type View } from "../route.ts";
import { dayMs } from "../times.ts";
import { roleWord } from "../words.ts";

const rowsMax = 2_000;

const tokens = clientOf(TokenService);

/** The org's other pages, which are not in the header. */
const links: readonly [view: View, text: string][] = [
  ["destinations", "Destinations"],
  ["platforms", "Platforms"],
  ["hooks", "Hooks"],
  ["secrets", "Secrets"],
  ["you", "Signed-in browsers"],
  ["events", "What happened"],
  ["orgs", "All orgs"],
];

export function OrgView() {
  return (
    <>
      <h1 class="unseen">Org</h1>
      <nav class="org-links" aria-label="Of the org">
        <b>{caller.value?.orgName}</b>
        {links.map(
          ([view, text]) =>
            (view !== "orgs" || maySeeOrgs()) && (
              <a key={view} class="button" href={linkTo(view)}>
                {text}
              </a>
            ),
        )}
      </nav>
      <Members />
      <Tokens />
    </>
  );
}

function Members() {
  const reading = useReading(
    () =>
      allPages(rowsMax, async (pageToken) => {
        const page = await orgs.listMembers({ pageSize: 200, pageToken });
        return { items: page.members, nextPageToken: page.nextPageToken };
      }),
    [],
    ({ kind }) => kind.startsWith("member."),
  );
  const members = reading.value.value;
  return (
    <section class="sheet" aria-label="Members">
      <h2>
        Members
        {may("admin") && (
          <button type="button" class="end" onClick={() => openDialog(<MemberDialog done={reading.again} />)}>
            Add a member
          </button>
        )}
      </h2>
      {!members ? (
        <ReadingState error={reading.error.value} again={reading.again} />
      ) : (
        <Table
          label="Members"
          items={members}
          keyOf={({ userId }) => userId}
          columns={[
            { title: "Name", cell: (member) => member.name || <span class="muted">–</span> },
            { title: "Email", cell: (member) => member.email },
            { title: "Role", cell: (member) => roleWord(member.role) },
            { title: "Since", cell: (member) => <Ago at={member.createdAt} /> },
            {
              title: "",
              class: "end",
              cell: (member) =>
                may("admin") ? <MemberActions member={member} done={reading.again} /> : null,
            },
          ]}
        />
      )}
    </section>
  );
}

const roles = [MemberRole.OWNER, MemberRole.ADMIN, MemberRole.MEMBER];

function MemberActions({ member, done }: { member: Member; done: () => void }) {
  const name = member.name || member.email;
  return (
    <>
      {member.email !== "" && (
        <button
          type="button"
          class="quiet"
          aria-label={`Change the role of ${name}`}
          onClick={() => openDialog(<MemberDialog member={member} done={done} />)}
        >
          Role
        </button>
      )}
      <button
        type="button"
        class="quiet warn"
        aria-label={`Remove ${name}`}
        onClick={() =>
          confirm({
            title: `Remove ${name}?`,
            text: "Their tokens, sign-ins and devices’ tokens end, their devices’ streams are closed, and what is pinned to them is unpinned.",
            action: "Remove the member",
            async act() {
              const gone = await orgs.removeMember({ userId: member.userId });
              done();
              return `${name} is removed: ${gone.tokensRevoked} tokens ended, ${gone.watchersUnpinned} watchers unpinned.`;
            },
          })
        }
      >
        Remove
      </button>
    </>
  );
}

function MemberDialog({ member, done }: { member?: Member; done: () => void }) {
  const email = useSignal(member?.email ?? "");
  const name = useSignal(member?.name ?? "");
  const role = useSignal(member?.role ?? MemberRole.MEMBER);
  const error = useSignal("");
  const save = async (event: Event) => {
    event.preventDefault();
    try {
      await orgs.addMember({ email: email.value.trim(), name: name.value.trim(), role: role.value });
      closeDialog();
      done();
    } catch (failure) {
      error.value = explainError(failure);
    }
  };
  return (
    <Dialog title={member ? `The role of ${member.name || member.email}` : "Add a member"} class="narrow">
      <form onSubmit={save}>
        {!member && (
          <>
            <label class="field">
              <span>Email</span>
              <input
                type="email"
                required
                value={email.value}
                onInput={(event) => {
                  email.value = event.currentTarget.value;
                }}
              />
            </label>
            <label class="field">
              <span>Name</span>
              <input
                value={name.value}
                onInput={(event) => {
                  name.value = event.currentTarget.value;
                }}
              />
            </label>
          </>
        )}
        <label class="field">
          <span>Role</span>
          <select
            value={String(role.value)}
            onChange={(event) => {
              role.value = Number(event.currentTarget.value);
            }}
          >
            {roles.map((value) => (
              <option key={value} value={value}>
                {roleWord(value)}
              </option>
            ))}
          </select>
        </label>
        <DialogEnd action={member ? "Save" : "Add"} error={error.value} />
      </form>
    </Dialog>
  );
}

const kindWords: Record<number, string> = {
  [TokenKind.PAT]: "person",
  [TokenKind.DEV]: "device",
  [TokenKind.SVC]: "service",
};

function Tokens() {
  const showsAll = useSignal(false);
  const reading = useReading(
    () =>
      allPages(rowsMax, async (pageToken) => {
        const page = await tokens.listTokens({ pageSize: 500, pageToken });
        return { items: page.tokens, nextPageToken: page.nextPageToken };
      }),
    [],
    ({ kind }) => kind.startsWith("token."),
  );
  const found = reading.value.value;
  const shown = found?.filter(
    (token) => showsAll.value || (!token.revokedAt && token.kind !== TokenKind.DEV),
  );
  return (
    <section class="sheet" aria-label="Tokens">
      <h2>
        Tokens
        <label class="small-check">
          <input
            type="checkbox"
            checked={showsAll.value}
            onChange={(event) => {
              showsAll.value = event.currentTarget.checked;
            }}
          />
          also devices’ and revoked ones
        </label>
        {may("write") && (
          <button type="button" class="end" onClick={() => openDialog(<TokenDialog done={reading.again} />)}>
            Create a token
          </button>
        )}
      </h2>
      {!shown ? (
        <ReadingState error={reading.error.value} again={reading.again} />
      ) : (
        <Table
          label="Tokens"
          items={shown}
          keyOf={({ id }) => id}
          columns={[
            { title: "Label", cell: (token) => <b>{token.label}</b> },
            { title: "Of a", cell: (token) => kindWords[token.kind] ?? "" },
            {
              title: "May",
              cell: (token) => `${token.scopes.join(", ")}${token.allDevices ? ", every device" : ""}`,
            },
            {
              title: "Last used",
              cell: (token) =>
                token.lastUsedAt ? <Ago at={token.lastUsedAt} /> : <span class="muted">never</span>,
            },
            {
              title: "Expires",
              cell: (token) =>
                token.revokedAt ? (
                  <span class="muted">revoked</span>
                ) : token.expiresAt ? (
                  <Ago at={token.expiresAt} />
                ) : (
                  <span class="muted">never</span>
                ),
            },
            {
              title: "",
              class: "end",
              cell: (token) =>
                may("write") && !token.revokedAt ? <TokenActions token={token} done={reading.again} /> : null,
            },
          ]}
        />
      )}
    </section>
  );
}

function TokenActions({ token, done }: { token: Token; done: () => void }) {
  return (
    <>
      <button
        type="button"
        class="quiet"
        aria-label={`Rotate ${token.label}`}
        onClick={() =>
          confirm({
            title: `Rotate ${token.label}?`,
            text: "A successor that may do the same is made and shown once; the old one stays good for ten minutes.",
            action: "Rotate it",
            async act() {
              const { secret } = await tokens.rotateToken({ tokenId: token.id });
              done();
              openDialog(<SecretDialog secret={secret} label={token.label} />);
              return undefined;
            },
          })
        }
      >
        Rotate
      </button>
      <button
        type="button"
        class="quiet warn"
        aria-label={`Revoke ${token.label}`}
        onClick={() =>
          confirm({
            title: `Revoke ${token.label}?`,
            text: "What uses it is refused from now on, and what it holds open ends.",
            action: "Revoke it",
            async act() {
              await tokens.revokeToken({ tokenId: token.id });
              done();
              return `${token.label} is revoked.`;
            },
          })
        }
      >
        Revoke
      </button>
    </>
  );
}

/** Shows a new secret, the only time. */
function SecretDialog({ secret, label }: { secret: string; label: string }) {
  return (
    <Dialog title={`The token ${label}`}>
      <p>Copy it now: it is kept nowhere, and not shown again.</p>
      <Copyable label="the token" text={secret} />
      <footer>
        <button type="button" class="primary" onClick={closeDialog}>
          Done
        </button>
      </footer>
    </Dialog>
  );
}

const lives = [
  { days: 7, label: "7 days" },
  { days: 30, label: "30 days" },
  { days: 90, label: "90 days" },
  { days: 365, label: "a year" },
  { days: 0, label: "for ever" },
];

function TokenDialog({ done }: { done: () => void }) {
  const offered = ["read", "write", "admin", "fleet:run"].filter(
    (scope) => caller.value?.scopes.includes(scope) || (scope === "fleet:run" && may("admin")),
  );
  const label = useSignal("");
  const kind = useSignal(TokenKind.SVC);
  const scopes = useSignal<ReadonlySet<string>>(new Set(["read"]));
  const days = useSignal(may("admin") ? 90 : 7);
  const error = useSignal("");
  const create = async (event: Event) => {
    event.preventDefault();
    try {
      const { secret } = await tokens.createToken({
        kind: kind.value,
        label: label.value.trim(),
        scopes: [...scopes.value],
        ...(days.value > 0 ? { expiresIn: durationFromMs(days.value * dayMs) } : {}),
      });
      done();
      openDialog(<SecretDialog secret={secret} label={label.value.trim()} />);
    } catch (failure) {
      error.value = explainError(failure);
    }
  };
  return (
    <Dialog title="Create a token" class="narrow">
      <form onSubmit={create}>
        <label class="field">
          <span>Label</span>
          <input
            required
            maxLength={100}
            value={label.value}
            onInput={(event) => {
              label.value = event.currentTarget.value;
            }}
          />
        </label>
        <label class="field">
          <span>Of</span>
          <select
            value={String(kind.value)}
            onChange={(event) => {
              kind.value = Number(event.currentTarget.value);
            }}
          >
            <option value={TokenKind.SVC}>a service</option>
            <option value={TokenKind.PAT}>you</option>
          </select>
        </label>
        <label class="field">
          <span>Good for</span>
          <select
            value={String(days.value)}
            onChange={(event) => {
              days.value = Number(event.currentTarget.value);
            }}
          >
            {lives.map((life) => (
              <option key={life.days} value={life.days}>
                {life.label}
              </option>
            ))}
          </select>
        </label>
        <fieldset class="checks">
          <legend>It may</legend>
          {offered.map((scope) => (
            <label key={scope}>
              <input
                type="checkbox"
                checked={scopes.value.has(scope)}
                onChange={(event) => {
                  const next = new Set(scopes.value);
                  if (event.currentTarget.checked) next.add(scope);
                  else next.delete(scope);
                  scopes.value = next;
                }}
              />
              <b>{scope}</b>
            </label>
          ))}
        </fieldset>
        <DialogEnd action="Create it" error={error.value} isDisabled={scopes.value.size === 0} />
      </form>
    </Dialog>
  );
}
