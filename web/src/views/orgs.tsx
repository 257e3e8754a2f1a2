/**
 * All orgs, for admins of the operator's org: the list, a new org, and the way into another org.
 */
import { useSignal } from "@preact/signals";
import type { Org } from "#gen/pinion/v1/org_pb.js";
import { caller, explainError, orgs } from "../data/api.ts";
import { allPages, useReading } from "../data/reading.ts";
import { Dialog, DialogEnd, openDialog } from "../parts/dialog.tsx";
import { TextField } from "../parts/fields.tsx";
import { SecretDialog } from "../parts/secret.tsx";
import { ReadingState, Table } from "../parts/table.tsx";
import { Ago } from "../parts/time.tsx";

const rowsMax = 2_000;

export function OrgsView() {
  const reading = useReading(
    (signal) =>
      allPages(rowsMax, async (pageToken) => {
        const page = await orgs.listOrgs({ pageSize: 500, pageToken }, { signal });
        return { items: page.orgs, nextPageToken: page.nextPageToken };
      }),
    [],
  );
  const found = reading.value.value;
  if (!found) return <ReadingState error={reading.error.value} again={reading.again} />;
  return (
    <section class="sheet" aria-label="Orgs">
      <header>
        <h1>
          Orgs <small>{found.length}</small>
        </h1>
        <button type="button" onClick={() => openDialog(<OrgDialog done={reading.again} />)}>
          Make an org
        </button>
      </header>
      <Table
        label="Orgs"
        items={found}
        keyOf={({ id }) => id}
        columns={[
          { title: "Org", cell: ({ id }) => <b>{id}</b> },
          { title: "Name", cell: ({ name }) => name },
          {
            title: "Default agent",
            cell: ({ defaultAgentId }) => defaultAgentId || <span class="muted">none</span>,
          },
          { title: "Made", cell: ({ createdAt }) => <Ago at={createdAt} /> },
          { title: "", class: "end", cell: (org) => <Here org={org} /> },
        ]}
      />
      <p class="note muted">
        A sign-in is good in one org. To work in another org, sign in there with a token or link of that org;
        a private window keeps both.
      </p>
    </section>
  );
}

function Here({ org }: { org: Org }) {
  return org.id === caller.value?.orgId ? <span class="muted">you are here</span> : null;
}

function OrgDialog({ done }: { done: () => void }) {
  const id = useSignal("");
  const name = useSignal("");
  const owner = useSignal("");
  const error = useSignal("");
  const save = async (event: Event) => {
    event.preventDefault();
    try {
      const orgId = id.value.trim();
      const { secret } = await orgs.createOrg({
        orgId,
        name: name.value.trim() || orgId,
        ownerEmail: owner.value.trim(),
      });
      done();
      const about = "The owner’s token, good in this org alone.";
      openDialog(<SecretDialog title={`The org ${orgId}`} secret={secret} about={about} />);
    } catch (failure) {
      error.value = explainError(failure);
    }
  };
  return (
    <Dialog title="Make an org" class="narrow">
      <form onSubmit={save}>
        <TextField label="Id" value={id} required maxLength={63} pattern="[a-z0-9]([a-z0-9\-]*[a-z0-9])?" />
        <TextField label="Name" value={name} maxLength={200} />
        <TextField label="Owner’s email" value={owner} isEmail required />
        <DialogEnd action="Make it" error={error.value} />
      </form>
    </Dialog>
  );
}
