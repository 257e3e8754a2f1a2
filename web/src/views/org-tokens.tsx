/** The tokens of an org: who made them, what they may do, and their ends. */
import { durationFromMs, type Timestamp } from "@bufbuild/protobuf/wkt";
import { useSignal } from "@preact/signals";
import { type Token, TokenKind, TokenService } from "#gen/pinion/v1/token_pb.js";
import { caller, clientOf, explainError, may } from "../data/api.ts";
import { allPages, useReading } from "../data/reading.ts";
import { confirm, Dialog, DialogEnd, openDialog } from "../parts/dialog.tsx";
import { Checks, ChoiceField, TextField } from "../parts/fields.tsx";
import { SecretDialog } from "../parts/secret.tsx";
import { type Column, ReadingState, Table } from "../parts/table.tsx";
import { Ago } from "../parts/time.tsx";
import { dayMs } from "../times.ts";

const rowsMax = 2_000;

const tokens = clientOf(TokenService);

const kindWords: Record<number, string> = {
  [TokenKind.PAT]: "person",
  [TokenKind.DEV]: "device",
  [TokenKind.SVC]: "service",
};

export function Tokens() {
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
        <Table label="Tokens" items={shown} keyOf={({ id }) => id} columns={columnsOf(reading.again)} />
      )}
    </section>
  );
}

const columnsOf = (done: () => void): Column<Token>[] => [
  { title: "Label", cell: (token) => <b>{token.label}</b> },
  { title: "Of a", cell: (token) => kindWords[token.kind] ?? "" },
  {
    title: "May",
    cell: (token) => `${token.scopes.join(", ")}${token.allDevices ? ", every device" : ""}`,
  },
  { title: "Last used", cell: (token) => <Moment at={token.lastUsedAt} /> },
  {
    title: "Expires",
    cell: (token) => (token.revokedAt ? <span class="muted">revoked</span> : <Moment at={token.expiresAt} />),
  },
  {
    title: "",
    class: "end",
    cell: (token) => (may("write") && !token.revokedAt ? <TokenActions token={token} done={done} /> : null),
  },
];

function Moment({ at }: { at: Timestamp | undefined }) {
  return at ? <Ago at={at} /> : <span class="muted">never</span>;
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
              openDialog(<SecretDialog title={`The token ${token.label}`} secret={secret} />);
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

/** Days; 0: without an end. */
const lives = [
  { value: 7, label: "7 days" },
  { value: 30, label: "30 days" },
  { value: 90, label: "90 days" },
  { value: 365, label: "a year" },
  { value: 0, label: "for ever" },
];

const owners = [
  { value: TokenKind.SVC, label: "a service" },
  { value: TokenKind.PAT, label: "you" },
];

function TokenDialog({ done }: { done: () => void }) {
  const offered = ["read", "write", "admin", "fleet:run"]
    .filter((scope) => caller.value?.scopes.includes(scope) || (scope === "fleet:run" && may("admin")))
    .map((scope) => ({ value: scope, label: scope }));
  const label = useSignal("");
  const kind = useSignal<number>(TokenKind.SVC);
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
      openDialog(<SecretDialog title={`The token ${label.value.trim()}`} secret={secret} />);
    } catch (failure) {
      error.value = explainError(failure);
    }
  };
  return (
    <Dialog title="Create a token" class="narrow">
      <form onSubmit={create}>
        <TextField label="Label" value={label} required maxLength={100} />
        <ChoiceField label="Of" value={kind} options={owners} />
        <ChoiceField label="Good for" value={days} options={lives} />
        <Checks legend="It may" chosen={scopes} options={offered} />
        <DialogEnd action="Create it" error={error.value} isDisabled={scopes.value.size === 0} />
      </form>
    </Dialog>
  );
}
