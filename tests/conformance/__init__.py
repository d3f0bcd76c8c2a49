"""The conformance suite: whether a client, in whatever language, keeps to PROTOCOL.md.

    python -m pytest tests/conformance --client "sh tools/clients/fsdm.sh"     # any command; may be given several times
    python -m pytest tests/conformance                                         # fsdm itself, and all of tools/clients

A client is a command with seven verbs. FSDM_DATA_DIR names the data directory; stdout is data, stderr is talk.

    want FILE|-                    ask for the chunk that the document describes; `-` is standard input
    register [--exclusive] FILE|-  let it be known; with --exclusive only where it is not registered
    delete ID                      ask for it to be deleted
    list                           the ids of the available chunks, one a line, by dataset and start
    find DATASET BLOCK             the absolute path of the files of the chunk that is responsible for the block
    hold DATASET BLOCK -- CMD…     run CMD while holding that chunk, with FSDM_CHUNK_PATH and FSDM_CHUNK_ID set
    acquire [--timeout S] ID -- CMD…, acquire [--timeout S] DATASET BLOCK -- CMD…
                                   the same, but what is registered is fetched before; S is in seconds

Exit codes:

    0    done
    1    the chunk could not be fetched (acquire); it is registered already (register --exclusive)
    2    wrong usage, or input that cannot be taken: an id, a block number, a want without `id` or over 1 MiB
    3    no available chunk of the dataset holds the block (find, hold); nor a registered one, or none with that id
         (acquire)
    4    the chunk has not come within S seconds (acquire)
    6    the data directory cannot be used: missing, of another format, or something is in the way of a marker
    hold and acquire end as CMD does: its exit code, the signal N that ended it (or 128 + N), 127 where it is not found,
    126 where it cannot be run

What is asked of each verb beyond that is said by the names of the tests. Where a race must be won or lost, the client
is stopped at the system call in question (`gate`). The suite is tested as well: `test_faults` has clients with one
known fault each.
"""
