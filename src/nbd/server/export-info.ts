/** What a server tells of an export (N-24, N-30, N-70). */
export interface ExportInfo {
  readonly name: string;
  readonly description: string;
  /** Bytes. */
  readonly size: number;
  /** Transmission flags, those that depend on what is negotiated left out. */
  readonly flags: number;
  /** Request alignment that the node has, and what it likes, bytes. */
  readonly minimumBlock: number;
  readonly preferredBlock: number;
  /** Names of the meta contexts that can be asked for. */
  readonly contexts: readonly string[];
}

/** The exports of a server, as clients see them. */
export interface ExportDirectory {
  list(): readonly ExportInfo[];
  /** By its name; the empty name is the default export (N-25). */
  find(name: string): ExportInfo | undefined;
}
