/** Structured data: a list of similar objects as a table, other data as a folding tree. */
import type { JsonValue } from "@bufbuild/protobuf";

const rowsMax = 200;
const columnsMax = 8;

export function DataTree({ value, name }: { value: JsonValue; name?: string }) {
  const columns = columnsOf(value);
  if (columns) return <DataTable rows={value as Record<string, JsonValue>[]} columns={columns} />;
  if (value === null || typeof value !== "object") return <Leaf value={value} />;
  const entries = Object.entries(value);
  if (entries.length === 0) return <code>{Array.isArray(value) ? "[]" : "{}"}</code>;
  return (
    <ul class="tree" aria-label={name}>
      {entries.slice(0, rowsMax).map(([key, inner]) => (
        <li key={key}>
          {inner !== null && typeof inner === "object" && Object.keys(inner).length > 0 ? (
            <details open>
              <summary>{key}</summary>
              <DataTree value={inner} name={key} />
            </details>
          ) : (
            <>
              <span class="key">{key}</span> <DataTree value={inner} />
            </>
          )}
        </li>
      ))}
      {entries.length > rowsMax && (
        <li class="muted">… {entries.length - rowsMax} more; copy the data for all</li>
      )}
    </ul>
  );
}

function Leaf({ value }: { value: string | number | boolean | null }) {
  return <span class={`leaf ${value === null ? "null" : typeof value}`}>{String(value)}</span>;
}

function DataTable({ rows, columns }: { rows: Record<string, JsonValue>[]; columns: string[] }) {
  return (
    <div class="scrolls">
      <table>
        <thead>
          <tr>
            {columns.map((column) => (
              <th key={column} scope="col">
                {column}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.slice(0, rowsMax).map((row, index) => (
            <tr key={index}>
              {columns.map((column) => (
                <td key={column}>{row[column] === undefined ? "" : <DataTree value={row[column]} />}</td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** The columns of a list of similar objects; undefined for other data. */
function columnsOf(value: JsonValue): string[] | undefined {
  if (!Array.isArray(value) || value.length === 0) return undefined;
  const isObject = (one: JsonValue) => one !== null && typeof one === "object" && !Array.isArray(one);
  if (!value.every(isObject)) return undefined;
  const columns = [...new Set(value.flatMap((one) => Object.keys(one as object)))];
  return columns.length > 0 && columns.length <= columnsMax ? columns : undefined;
}
