"""The contract violations V-* (section 20), one by one: how bad, what the contract says, where that is written.

Owns the table. Finding a violation is done where the rule is, telling of it in `_core`. It must not know callouts.
"""

from __future__ import annotations

from typing import NamedTuple

ERROR, WARNING, LINT = "E", "W", "L"

# Who can see it.
ENGINE = "engine"  # the engine alone
HINTS = "verify.hints"  # the engine, if guesses are asked for (VRF-4)
TRACK = "track"  # for contexts registered through `fwps.track` (VRF-5)
ACCOUNTED = "testing.accounted()"  # the callout is wrapped and says what it counts
THREADS = "calls from threads"  # measured in the calling threads (VRF-7)
CLOCK = "a real clock"  # time must be real (VRF-3)


class ViolationRule(NamedTuple):
    """One violation.

    Attributes:
        severity: "E" the contract is broken, "W" a warning, "L" lint; only E counts under `strict`.
        says: what the contract demands, as one sentence.
        decided_by: the rules that say what happens to the bytes, or to the call, all the same.
        documented: titles of the driver documentation, names of structures and functions, and samples; "project" where
            it is a promise this project adds.
        seen_by: ENGINE, or what it takes beside the engine.
    """

    severity: str
    says: str
    decided_by: tuple[str, ...]
    documented: tuple[str, ...]
    seen_by: str = ENGINE


_INSPECTION = "Stream Inspection"
_PACKET = "FWPS_STREAM_CALLOUT_IO_PACKET0"
_OUT = "FWPS_CLASSIFY_OUT0"
_INJECT = "FwpsStreamInjectAsync0"
_CONTINUE = "FwpsStreamContinue0"
_CLONE = "FwpsCloneStreamData0"
_CLASSIFY = "FWPS_CALLOUT_CLASSIFY_FN0"
_TYPES = "Types of Callouts"
_NOTIFY = "Processing Notify Callouts"
_PROGRAMMING = "Callout Driver Programming Considerations"
_PEND = ("FwpsPendOperation0", "FwpsPendClassify0")
_REDIRECTION = "Using Bind or Connect Redirection"
_STMEDIT = "WFP sample stmedit"

VIOLATION_RULES: dict[str, ViolationRule] = {
    "V-1": ViolationRule(
        LINT,
        "classifyOut.rights has no meaning at the stream layer; a callout does not write it.",
        ("ARB-8",),
        (_INSPECTION,),
    ),
    "V-2": ViolationRule(
        ERROR,
        "With BUFFER_LIMIT_REACHED set, a callout decides; it does not ask for more data.",
        ("ACT-13",),
        (_INSPECTION, _OUT),
    ),
    "V-3": ViolationRule(
        ERROR,
        "FWPS_STREAM_ACTION_DEFER is for inbound data only.",
        ("DEF-1", "ACT-13"),
        (_PACKET, _INSPECTION),
    ),
    "V-4": ViolationRule(
        ERROR,
        "The callout of an inspection filter does not drop the connection.",
        ("DRP-1",),
        (_PACKET,),
    ),
    "V-4b": ViolationRule(
        LINT,
        "DROP_CONNECTION is for callouts of filters of type FWP_ACTION_CALLOUT_UNKNOWN.",
        ("DRP-1",),
        (_PACKET, _STMEDIT),
    ),
    "V-5": ViolationRule(
        ERROR,
        "With NO_MORE_DATA set, a callout decides; no more data will come.",
        ("NMD-10", "ACT-13"),
        (_INSPECTION,),
    ),
    "V-6": ViolationRule(
        ERROR,
        "A callout that does not only inspect sets classifyOut.actionType, to a value its filter's type allows.",
        ("ACT-1", "ACT-2", "ACT-3", "ACT-4", "ACT-5"),
        ("FWPS_ACTION0", _INSPECTION),
    ),
    "V-7": ViolationRule(
        LINT,
        "With a stream action other than NONE, the action type is FWP_ACTION_NONE.",
        ("ACT-6",),
        (_PACKET, _INSPECTION),
    ),
    "V-8": ViolationRule(
        ERROR,
        "countBytesEnforced is at most the length of the data indicated.",
        ("ACT-7",),
        (_PACKET,),
    ),
    "V-9": ViolationRule(
        LINT,
        "PERMIT with countBytesEnforced 0 permits everything that was shown, not nothing.",
        ("ACT-8",),
        (_PACKET, _STMEDIT),
        HINTS,
    ),
    "V-10": ViolationRule(
        LINT,
        "countBytesRequired is 0 unless the stream action is NEED_MORE_DATA.",
        ("ACT-10",),
        (_PACKET,),
    ),
    "V-11": ViolationRule(
        LINT,
        "With NEED_MORE_DATA and DEFER countBytesEnforced is ignored.",
        ("NMD-1", "DEF-2"),
        ("Using a Callout for Deep Inspection of Stream Data",),
    ),
    "V-12": ViolationRule(
        LINT,
        "No more than 8 MB are ever accumulated, so more cannot be asked for.",
        ("NMD-8",),
        (_INSPECTION,),
    ),
    "V-13": ViolationRule(
        WARNING,
        "With BUFFER_LIMIT_REACHED set, all that is shown is decided at once.",
        ("NMD-7",),
        (_INSPECTION, _OUT),
    ),
    "V-14": ViolationRule(
        ERROR, "FwpsStreamContinue is not called from inside classifyFn.", ("DEF-7",), (_CONTINUE,)
    ),
    "V-15": ViolationRule(
        LINT,
        "FwpsStreamContinue is given the stream flags of the indication that was deferred.",
        ("DEF-8",),
        (_CONTINUE,),
    ),
    "V-16": ViolationRule(
        ERROR,
        "FwpsStreamContinue does not overlap FwpsStreamInjectAsync on the same flow.",
        ("DEF-9",),
        (_INSPECTION,),
        THREADS,
    ),
    "V-17": ViolationRule(
        ERROR,
        "While data or a FIN of a direction is pended, everything that follows in it is blocked and pended too.",
        ("OOB-2", "OOB-3", "OOB-8"),
        (_INSPECTION, "Processing Classify Callouts Asynchronously"),
    ),
    "V-17w": ViolationRule(
        WARNING,
        "A callout that works out of band does not return to inline decisions on the same stream.",
        ("OOB-3", "OOB-13"),
        (_INSPECTION,),
    ),
    "V-17x": ViolationRule(
        LINT,
        "An urgent byte that is permitted overtakes the data that is pended.",
        ("OOB-2",),
        ("stmedit of the Windows 7 WDK", "public third-party drivers"),
    ),
    "V-18": ViolationRule(
        ERROR,
        "ALLOW_CONNECTION is not returned while something is pended.",
        ("ALW-6",),
        (_INSPECTION,),
    ),
    "V-19": ViolationRule(
        ERROR,
        "A DISCONNECT is injected only where the callout has pended the FIN of that direction.",
        ("OOB-7", "ABT-3"),
        (_INSPECTION, "FwpsFlowAbort0"),
    ),
    "V-20": ViolationRule(
        WARNING,
        "What was blocked and kept as a copy is injected before the FIN is permitted, or it is lost.",
        ("INL-5",),
        (_STMEDIT,),
        HINTS,
    ),
    "V-21": ViolationRule(
        ERROR,
        "Outside of classifyFn data is injected only behind data this callout has blocked, deferred or pended.",
        ("OOB-5",),
        (_INJECT,),
    ),
    "V-22": ViolationRule(
        ERROR,
        "Injections into one direction of a flow are serialised by the callout.",
        ("OOB-9",),
        ("WFP sample WFPSampler",),
        THREADS,
    ),
    "V-23": ViolationRule(
        ERROR,
        "Every clone, reference and allocated list is given back.",
        ("CLN-9", "REF-2"),
        (_CLONE, "FwpsDiscardClonedStreamData0", "FwpsReferenceNetBufferList0"),
    ),
    "V-24": ViolationRule(
        LINT,
        "Clones and references are not kept long: they pin memory of the flow.",
        ("CLN-8",),
        ("FwpsAllocateCloneNetBufferList0", "FwpsReferenceNetBufferList0"),
        CLOCK,
    ),
    "V-25": ViolationRule(
        ERROR,
        "A list is freed by the function that belongs to the one that made it.",
        ("CLN-6",),
        (_CLONE, "FwpsFreeNetBufferList0", "FwpsFreeCloneNetBufferList0"),
    ),
    "V-26": ViolationRule(
        ERROR,
        "A list is freed once, injected once, and not touched between the injection and its completion.",
        ("INJ-40", "REF-2"),
        (_INJECT, _CLONE),
    ),
    "V-27": ViolationRule(
        ERROR,
        "What classifyFn was given is not used after it has returned, but for lists it holds a reference on.",
        ("IND-22", "CLN-2", "REF-3"),
        (_CLASSIFY, _CLONE),
    ),
    "V-28": ViolationRule(
        ERROR,
        "An injection handle is not destroyed from inside classifyFn, completionFn or flowDeleteFn.",
        ("CMP-12",),
        ("FwpsInjectionHandleDestroy0",),
    ),
    "V-29": ViolationRule(
        ERROR,
        "What was changed in a list's structure is undone before the list is given back.",
        ("CLN-7", "CLN-13"),
        (_TYPES, "FwpsAllocateCloneNetBufferList0"),
    ),
    "V-30": ViolationRule(
        WARNING,
        "A metadata member is read only if its bit in currentMetadataValues is set.",
        ("MET-3",),
        ("FWPS_INCOMING_METADATA_VALUES0", "FWPS_IS_METADATA_FIELD_PRESENT"),
    ),
    "V-31": ViolationRule(
        ERROR,
        "The memory of a flow context belongs to flowDeleteFn: nobody else releases it, nobody uses it afterwards.",
        ("CTX-12",),
        ("FwpsFlowRemoveContext0", "FWPS_CALLOUT_FLOW_DELETE_NOTIFY_FN0"),
        TRACK,
    ),
    "V-32": ViolationRule(
        ERROR,
        "Calls that need PASSIVE_LEVEL are not made from classifyFn, completionFn or flowDeleteFn.",
        ("IRQ-3",),
        ("FwpsCalloutRegister0", "FwpsInjectionHandleCreate0", "the IRQL of each function in fwpsk.h"),
    ),
    "V-33": ViolationRule(
        ERROR,
        "No Fwpm* function is called from notifyFn.",
        ("IRQ-3",),
        (_NOTIFY, "Object Management"),
    ),
    "V-34": ViolationRule(
        ERROR,
        "After an injection that was refused the caller still owns the lists, and frees them.",
        ("INJ-1", "CLN-9"),
        (_INJECT,),
    ),
    "V-35": ViolationRule(
        ERROR,
        "completionFn frees the list it is given.",
        ("CMP-8", "CLN-9"),
        ("FWPS_INJECT_COMPLETE0", _CLONE),
    ),
    "V-36": ViolationRule(
        LINT,
        "FWPS_CLASSIFY_OUT_FLAG_ABSORB is not for stream and discard layers.",
        ("DSC-3",),
        (_OUT, _TYPES),
    ),
    "V-37": ViolationRule(
        ERROR,
        "Nothing is injected into a flow that was reset.",
        ("IND-17", "VRF-2"),
        ("FWPS_STREAM_DATA0",),
    ),
    "V-38": ViolationRule(
        ERROR,
        "A stream filter is not deleted while its callout works out of band, waits or defers.",
        ("MGMT-13", "MGMT-14"),
        (_INSPECTION,),
    ),
    "V-39": ViolationRule(
        ERROR,
        "Before a driver unloads it removes its contexts, unregisters its callouts and destroys its handles.",
        ("UNR-8",),
        ("Unloading a Callout Driver", "FwpsInjectionHandleCreate0"),
    ),
    "V-40": ViolationRule(ERROR, "No exception comes out of a callback.", ("ACT-14",), ("project",)),
    "V-41": ViolationRule(
        ERROR,
        "STATUS_OBJECT_NAME_EXISTS satisfies NT_SUCCESS, but the new context was not stored: its caller frees it.",
        ("CTX-6",),
        ("FwpsFlowAssociateContext0",),
        TRACK,
    ),
    "V-42": ViolationRule(
        LINT,
        "Callbacks run at up to DISPATCH_LEVEL: they neither wait nor take long.",
        ("IRQ-1",),
        (_PROGRAMMING,),
        CLOCK,
    ),
    "V-43": ViolationRule(
        LINT,
        "Data with FWPS_STREAM_FLAG_SEND_NODELAY is not held back.",
        ("IND-6",),
        ("FWPS_STREAM_DATA0",),
        CLOCK,
    ),
    "V-44": ViolationRule(
        LINT,
        "At FLOW_ESTABLISHED a callout neither blocks nor permits.",
        ("LAY-6",),
        (_PROGRAMMING, "ALE Layers"),
    ),
    "V-45": ViolationRule(
        LINT,
        "A callout's flags are ones that the registered structure and the system know.",
        ("OBJ-15",),
        ("FWPS_CALLOUT0", "FWPS_CALLOUT1", "FWPS_CALLOUT2"),
    ),
    "V-46": ViolationRule(
        ERROR,
        "An inspection callout does not modify the stream.",
        ("ACT-3",),
        (_TYPES, "FWPS_ACTION0"),
    ),
    "V-47": ViolationRule(
        WARNING,
        "Callouts that may decide on the same traffic have a sublayer each.",
        ("MGMT-8",),
        ("Filter Weight Assignment", "Best Practices"),
    ),
    "V-48": ViolationRule(
        WARNING,
        "A flow context is not 0, and a callout that uses contexts has a flowDeleteFn.",
        ("CTX-2", "CTX-3"),
        ("FwpsFlowAssociateContext0", "FWPS_CALLOUT0"),
    ),
    "V-49": ViolationRule(
        LINT,
        "Reserved members of the engine's own structures are left alone.",
        ("IND-8",),
        ("FWPS_STREAM_DATA_OFFSET0", _OUT),
    ),
    "V-50": ViolationRule(
        WARNING,
        "Data is injected without a DISCONNECT bit; the FIN is injected by itself.",
        ("INL-7",),
        (_STMEDIT,),
    ),
    "V-51": ViolationRule(
        WARNING,
        "Who is shown what it asked for comes to a decision some time.",
        ("NMD-14",),
        (_OUT,),
    ),
    "V-52": ViolationRule(
        WARNING,
        "A FIN that was pended is injected when what is before it has been.",
        ("OBJ-14", "VRF-2"),
        (_INJECT,),
    ),
    "V-53": ViolationRule(
        WARNING,
        "What was pended is injected in the order in which it came.",
        ("OOB-4",),
        ("Processing Classify Callouts Asynchronously",),
        HINTS,
    ),
    "V-54": ViolationRule(
        WARNING,
        "notifyFn ignores notify types it does not know and returns STATUS_SUCCESS.",
        ("NTF-8",),
        (_NOTIFY, "FWPS_CALLOUT_NOTIFY_FN0"),
    ),
    "V-55": ViolationRule(
        LINT,
        "A filter's conditions are ones that its layer offers.",
        ("MGMT-9",),
        ("Filtering Conditions Available at Each Filtering Layer",),
    ),
    "V-56": ViolationRule(
        ERROR,
        "The remainder of a partial decision is shown again by itself: no new data comes with it.",
        ("IND-11",),
        (_INSPECTION, _STMEDIT),
        ACCOUNTED,
    ),
    "V-57": ViolationRule(
        WARNING,
        "After the FIN of a direction no data of it is counted.",
        ("IND-20",),
        ("TCP", "project"),
        ACCOUNTED,
    ),
    "V-58": ViolationRule(
        WARNING,
        "A list that is injected inbound has one NET_BUFFER.",
        ("INJ-11", "CLN-12"),
        ("Bug Check 0x1D3: WFP_INVALID_OPERATION",),
    ),
    "V-59": ViolationRule(
        ERROR,
        "A connection that was pended is completed.",
        ("LAY-14",),
        (*_PEND, "FwpsCompleteOperation0", "FwpsCompleteClassify0"),
    ),
    "V-60": ViolationRule(
        ERROR,
        "A classify handle is released once; writable layer data is applied once, by who may write, in what may be "
        "written.",
        ("LAY-22", "LAY-24", "LAY-25", "LAY-26"),
        (
            "FwpsAcquireClassifyHandle0",
            "FwpsAcquireWritableLayerDataPointer0",
            "FwpsApplyModifiedLayerData0",
            "FWPS_CONNECT_REQUEST0",
        ),
    ),
    "V-61": ViolationRule(
        ERROR,
        "What was pended is completed once, after the classify that pended it; a reauthorisation is not pended.",
        ("LAY-17", "LAY-19", "LAY-23"),
        (*_PEND, "FwpsCompleteOperation0", "FwpsCompleteClassify0"),
    ),
    "V-62": ViolationRule(
        WARNING,
        "A redirect to the local host names localRedirectTargetPID and a redirect handle; version-0 callouts cannot "
        "redirect.",
        ("LAY-22", "LAY-28"),
        ("FWPS_CONNECT_REQUEST0", "FwpsRedirectHandleCreate0", _REDIRECTION),
    ),
    "V-63": ViolationRule(
        WARNING,
        "Before a redirect the connection's redirect state is queried; what this handle has redirected already is "
        "let go.",
        ("LAY-29",),
        ("FwpsQueryConnectionRedirectState0", _REDIRECTION),
    ),
    "V-64": ViolationRule(
        LINT,
        "Who pended answers BLOCK (with ABSORB after FwpsPendOperation0); REAUTHORIZE_IF_MODIFIED_BY_OTHERS is for "
        "pended classifies.",
        ("LAY-17", "LAY-25"),
        (*_PEND, "FwpsApplyModifiedLayerData0"),
    ),
    # No V-id of its own: a stream action that is unknown, or not for this indication.
    "ACT-13": ViolationRule(
        ERROR,
        "A stream action is one that its indication allows: none for an ABORT, no NEED_MORE_DATA for an urgent byte.",
        ("ACT-13", "IND-17"),
        (_INSPECTION, _PACKET),
    ),
}
