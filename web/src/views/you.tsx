/** The person signed in, the permissions, and the person's signed-in browsers. */
import { type SignInEntry, SignInMethod } from "#gen/pinion/v1/sign_in_pb.js";
import { caller, signIns } from "../data/api.ts";
import { allPages, useReading } from "../data/reading.ts";
import { confirm } from "../parts/dialog.tsx";
import { type Column, ReadingState, Table } from "../parts/table.tsx";
import { Ago } from "../parts/time.tsx";
import { roleWord } from "../words.ts";

const entriesMax = 500;
const methods: Record<number, string> = {
  [SignInMethod.LINK]: "a link",
  [SignInMethod.TOKEN]: "a token",
  [SignInMethod.OIDC]: "the provider",
};

export function YouView() {
  const who = caller.value;
  const reading = useReading(
    () =>
      allPages(entriesMax, async (pageToken) => {
        const page = await signIns.listSignIns({ pageSize: 200, pageToken });
        return { items: page.signIns, nextPageToken: page.nextPageToken };
      }),
    [],
    ({ kind }) => kind.startsWith("sign_in."),
  );
  const entries = reading.value.value;
  return (
    <>
      <section class="sheet" aria-label="You">
        <h1>{who?.userName || "A service"}</h1>
        <dl>
          <div>
            <dt>org</dt>
            <dd>{who?.orgName}</dd>
          </div>
          <div>
            <dt>role</dt>
            <dd>{who ? roleWord(who.role) : ""}</dd>
          </div>
          <div>
            <dt>may</dt>
            <dd>{who?.scopes.join(", ")}</dd>
          </div>
          {who?.email && (
            <div>
              <dt>email</dt>
              <dd>{who.email}</dd>
            </div>
          )}
        </dl>
      </section>
      <section class="sheet" aria-label="Browsers that are signed in">
        <h2>Browsers that are signed in</h2>
        {entries ? (
          <Table
            label="Browsers that are signed in"
            items={entries}
            keyOf={(entry) => entry.id}
            columns={columnsOf(reading.again)}
          />
        ) : (
          <ReadingState error={reading.error.value} again={reading.again} />
        )}
      </section>
    </>
  );
}

const columnsOf = (again: () => void): Column<SignInEntry>[] => [
  {
    title: "Browser",
    cell: (entry) => <span title={entry.userAgent}>{browserOf(entry.userAgent)}</span>,
  },
  { title: "Person", cell: (entry) => entry.userName },
  { title: "By", cell: (entry) => methods[entry.method] ?? "" },
  { title: "From", cell: (entry) => <code>{entry.address}</code> },
  { title: "Since", cell: (entry) => <Ago at={entry.createdAt} /> },
  { title: "Ends", cell: (entry) => <Ago at={entry.expiresAt} /> },
  { title: "", class: "end", cell: (entry) => <End entry={entry} again={again} /> },
];

function End({ entry, again }: { entry: SignInEntry; again: () => void }) {
  if (entry.current) return <span class="muted">this one</span>;
  const act = async () => {
    await signIns.endSignIn({ signInId: entry.id });
    again();
    return "That browser is signed out.";
  };
  const ask = () =>
    confirm({
      title: "Sign that browser out?",
      text: `${browserOf(entry.userAgent)} of ${entry.userName}, from ${entry.address}. What it holds open ends at once.`,
      action: "Sign it out",
      act,
    });
  return (
    <button type="button" class="quiet warn" onClick={ask}>
      Sign out
    </button>
  );
}

/** A short name such as "Chrome on Linux", from the user agent. */
function browserOf(userAgent: string): string {
  const browsers: [name: string, pattern: RegExp][] = [
    ["Edge", /Edg\//],
    ["Firefox", /Firefox\//],
    ["Chrome", /Chrom(e|ium)\//],
    ["Safari", /Safari\//],
  ];
  const systems: [name: string, pattern: RegExp][] = [
    ["Android", /Android/],
    ["iPhone", /iPhone|iPad/],
    ["Windows", /Windows/],
    ["macOS", /Mac OS X/],
    ["Linux", /Linux/],
  ];
  const found = (from: typeof browsers) => from.find(([, pattern]) => pattern.test(userAgent))?.[0];
  const browser = found(browsers);
  if (!browser) return userAgent.slice(0, 40) || "unknown";
  const system = found(systems);
  return system ? `${browser} on ${system}` : browser;
}
