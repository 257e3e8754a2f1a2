import { useSignal } from "@preact/signals";
import { type Member, MemberRole } from "#gen/pinion/v1/org_pb.js";
import { caller, explainError, may, maySeeOrgs, orgs } from "../data/api.ts";
import { allPages, useReading } from "../data/reading.ts";
import { closeDialog, confirm, Dialog, DialogEnd, openDialog } from "../parts/dialog.tsx";
import { ChoiceField, TextField } from "../parts/fields.tsx";
import { ReadingState, Table } from "../parts/table.tsx";
import { Ago } from "../parts/time.tsx";
import { linkTo, type View } from "../route.ts";
import { roleWord } from "../words.ts";
import { Tokens } from "./org-tokens.tsx";

const rowsMax = 2_000;

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

const roles = [MemberRole.OWNER, MemberRole.ADMIN, MemberRole.MEMBER].map((value) => ({
  value,
  label: roleWord(value),
}));

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
  const role = useSignal<number>(member?.role ?? MemberRole.MEMBER);
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
            <TextField label="Email" value={email} isEmail required />
            <TextField label="Name" value={name} />
          </>
        )}
        <ChoiceField label="Role" value={role} options={roles} />
        <DialogEnd action={member ? "Save" : "Add"} error={error.value} />
      </form>
    </Dialog>
  );
}
