import { useSignal } from "@preact/signals";
import { type Device, type Grant, GrantPermission } from "#gen/pinion/v1/fleet_pb.js";
import { caller, explainError, fleet, orgs } from "../data/api.ts";
import { allPages, useReading } from "../data/reading.ts";
import { closeDialog, Dialog, DialogEnd, openDialog } from "../parts/dialog.tsx";
import { Checks } from "../parts/fields.tsx";
import { ReadingState } from "../parts/table.tsx";
import { attempt, tell } from "../parts/toasts.tsx";
import { permissionWord } from "../words.ts";

const membersMax = 500;

export function Grants({ device }: { device: Device }) {
  const reading = useReading(
    (signal) => fleet.listGrants({ deviceId: device.id, pageSize: 200 }, { signal }),
    [device.id],
    ({ deviceId, kind }) => deviceId === device.id && kind.startsWith("device.grant"),
  );
  const grants = reading.value.value?.grants;
  const who = caller.value;
  const isMine = device.ownerId === who?.userId || (who?.scopes.includes("admin") ?? false);
  return (
    <section class="sheet" aria-label="Who may use it">
      <h2>
        Who may use it
        {isMine && (
          <button
            type="button"
            class="end"
            onClick={() => openDialog(<GrantDialog device={device} done={reading.again} />)}
          >
            Grant
          </button>
        )}
      </h2>
      {!grants ? (
        <ReadingState error={reading.error.value} again={reading.again} />
      ) : grants.length === 0 ? (
        <p class="muted">Its owner, and the org’s owners and admins.</p>
      ) : (
        <ul class="versions">
          {grants.map((grant) => (
            <OneGrant key={grant.id} {...{ device, grant, isMine }} done={reading.again} />
          ))}
        </ul>
      )}
    </section>
  );
}

function OneGrant(props: { device: Device; grant: Grant; isMine: boolean; done: () => void }) {
  const { device, grant, isMine, done } = props;
  const takeBack = () =>
    attempt(async () => {
      const permissions = [grant.permission];
      await fleet.revokeGrant({
        deviceId: device.id,
        ...(grant.grantee ? { grantee: grant.grantee } : {}),
        permissions,
      });
      done();
      return "It was taken back.";
    });
  return (
    <li>
      <span>
        <b>{granteeName(grant)}</b> may {permissionWord(grant.permission)}
        {grant.firstUsedAt === undefined && <small> (not used yet)</small>}
      </span>
      {isMine && (
        <button
          type="button"
          class="quiet warn"
          aria-label={`Take back: ${granteeName(grant)} may ${permissionWord(grant.permission)}`}
          onClick={takeBack}
        >
          Take back
        </button>
      )}
    </li>
  );
}

const granteeName = (grant: Grant) =>
  grant.grantee?.kind.case === "everyone" ? "Everyone in the org" : grant.granteeName || "a service";

const permissions = [
  { value: GrantPermission.USE, label: "use", hint: "pin watchers to it, trigger and edit them" },
  { value: GrantPermission.READ, label: "read", hint: "what its runs say: output, results, transcripts" },
  { value: GrantPermission.MANAGE, label: "manage", hint: "rename and disconnect it, change its labels" },
];

function GrantDialog({ device, done }: { device: Device; done: () => void }) {
  const members = useReading(
    () =>
      allPages(membersMax, async (pageToken) => {
        const page = await orgs.listMembers({ pageSize: 200, pageToken });
        return { items: page.members, nextPageToken: page.nextPageToken };
      }),
    [],
  );
  const to = useSignal("");
  const chosen = useSignal<ReadonlySet<GrantPermission>>(new Set([GrantPermission.USE]));
  const error = useSignal("");
  const grant = async (event: Event) => {
    event.preventDefault();
    try {
      await fleet.grantDevice({
        deviceId: device.id,
        grantee: {
          kind: to.value === "" ? { case: "everyone", value: true } : { case: "userId", value: to.value },
        },
        permissions: [...chosen.value],
      });
      closeDialog();
      done();
      tell("It was granted.");
    } catch (failure) {
      error.value = explainError(failure);
    }
  };
  return (
    <Dialog title={`Grant ${device.label}`} class="narrow">
      <form onSubmit={grant}>
        <label class="field">
          <span>To</span>
          <select
            value={to.value}
            onChange={(event) => {
              to.value = event.currentTarget.value;
            }}
          >
            <option value="">everyone in the org</option>
            {(members.value.value ?? [])
              .filter(({ userId }) => userId !== device.ownerId)
              .map(({ userId, name, email }) => (
                <option key={userId} value={userId}>
                  {name || email}
                </option>
              ))}
          </select>
        </label>
        <Checks legend="They may" chosen={chosen} options={permissions} />
        <DialogEnd action="Grant" error={error.value} isDisabled={chosen.value.size === 0} />
      </form>
    </Dialog>
  );
}
