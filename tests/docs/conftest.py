"""The examples of the pages run on machines that have other things to do as well."""

from tests.support.patience import patient

__all__ = ["patient"]
